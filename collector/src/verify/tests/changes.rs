//! Changes of proofs: by somebody without the key, and by an operator who signs what was changed.
//!
//! What is accepted all the same must charge the same: the document's figures are those that were issued.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::BTreeMap;

use super::super::json::{self, Value};
use super::books::{self, places};
use super::writer::{Proof, Random, field, key_pair, number, signed, text, written};
use crate::verify::{Keys, verify_invoice};

const KEY: u8 = 7;

/// What an operator changes.
type Act = fn(&mut Proof, &mut Random);
/// Texts: day and index.
type Places = Vec<(usize, usize)>;
/// Texts of a document that are signed, and not computed; and what names its time and place.
const WORDS: [&str; 17] = [
    "details",
    "label",
    "seller",
    "name",
    "address",
    "tax_id",
    "email",
    "number",
    "date",
    "due_date",
    "issued_at",
    "period_end",
    "notes",
    "unit",
    "aggregation",
    "term",
    "cut",
];

fn file(proof: &Proof) -> Vec<u8> {
    proof.file(&key_pair(KEY))
}

fn is_accepted(file: &[u8]) -> bool {
    verify_invoice(file, None).is_ok()
}

#[test]
fn every_changed_byte_is_refused() {
    let mut random = Random(1);
    let files: Vec<_> = (0..3).flat_map(books::proofs).map(|proof| file(&proof)).collect();
    for file in &files {
        assert!(is_accepted(file));
    }
    for turn in 0..1_500 {
        let mut changed = random.pick(&files).clone();
        // Half of them near the ends, where the form is.
        let at = match random.below(4) {
            0 => random.below(200),
            1 => changed.len() - 1 - random.below(200),
            _ => random.below(changed.len()),
        };
        let before = changed[at];
        changed[at] = match random.below(3) {
            0 => before ^ (1 << random.below(8)),
            1 => *random.pick(b"0123456789abcdef\"\\[]{}, "),
            _ => u8::try_from(random.below(256)).unwrap(),
        };
        if changed[at] != before {
            assert!(!is_accepted(&changed), "turn {turn}: byte {at}, {before} -> {}", changed[at]);
        }
    }
}

#[test]
fn every_changed_field_is_refused() {
    let mut random = Random(2);
    let files: Vec<_> = (3..6).flat_map(books::proofs).map(|proof| file(&proof)).collect();
    let mut turns = 0;
    while turns < 1_200 {
        let file = random.pick(&files);
        let whole = std::str::from_utf8(file).unwrap().trim_end();
        let mut value = json::parse(whole, "").unwrap();
        change(&mut value, &mut random);
        let changed = format!("{}\n", written(&value));
        if changed.as_bytes() != file {
            turns += 1;
            assert!(!is_accepted(changed.as_bytes()), "{changed}");
        }
    }
}

#[test]
fn nothing_makes_it_panic() {
    let mut random = Random(3);
    let files: Vec<_> = (6..8).flat_map(books::proofs).map(|proof| file(&proof)).collect();
    for _ in 0..600 {
        let file = random.pick(&files);
        let mut changed = file[..random.below(file.len())].to_vec();
        if random.chance(3) {
            changed.extend(&file[random.below(file.len())..]);
        }
        if changed != *file {
            assert!(!is_accepted(&changed));
        }
        let _keys = Keys::read(&changed);
    }
    for text in [
        "",
        "\n",
        "{}",
        "{",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        "null\n",
        "{\"format\":9}\n",
        "\u{feff}{}",
    ] {
        assert!(!is_accepted(text.as_bytes()));
    }
}

/// Whatever is changed anywhere and signed again: it is refused, or says the same figures.
#[test]
fn a_file_changed_and_signed_again_is_refused_or_charges_the_same() {
    let mut random = Random(4);
    let proofs: Vec<_> = (8..11).flat_map(books::proofs).collect();
    let key = key_pair(KEY);
    let mut accepted = 0;
    for turn in 0..1_200 {
        let proof = random.pick(&proofs);
        let mut value = proof.unsigned(&key);
        change(&mut value, &mut random);
        let changed = signed(&value, &key);
        if is_accepted(&changed) {
            accepted += 1;
            let said = field(&mut value, "document").clone();
            let Value::Text(said) = said else { panic!("a document is a text") };
            let said = json::parse(&said, "").unwrap();
            assert_eq!(figures(&said), figures(&proof.document), "turn {turn}");
        }
    }
    println!("{accepted} of 1,200 were accepted, and said the same figures");
    assert!(accepted < 240, "{accepted}");
}

/// An operator who makes another certificate of other usage, and signs all of it, for the same document.
#[test]
fn an_operator_who_signs_all_of_it_charges_the_same_or_is_refused() {
    let mut random = Random(5);
    let proofs: Vec<_> = (11..15).flat_map(books::proofs).collect();
    let proofs: Vec<_> = proofs.into_iter().map(|proof| (file(&proof), proof)).collect();
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut turns = 0;
    while turns < 1_500 {
        let (before, proof) = random.pick(&proofs);
        let mut changed = proof.clone();
        let acts: [(&str, Act); 9] = [
            ("figures of a row", change_row),
            ("a row more or less", change_rows),
            ("assignment", change_assignment),
            ("a part's terms", change_part),
            ("prices", change_plan),
            ("subscription", change_subscription),
            ("the document", change_document),
            ("amounts of the document", change_amount),
            ("tax rounding", change_rounding),
        ];
        let (name, act) = *random.pick(&acts);
        act(&mut changed, &mut random);
        let after = file(&changed);
        if *before == after {
            continue;
        }
        turns += 1;
        let (tried, accepted) = counts.entry(name).or_default();
        *tried += 1;
        if is_accepted(&after) {
            *accepted += 1;
            assert_eq!(figures(&changed.document), figures(&proof.document), "{name}");
        }
    }
    for (name, (tried, accepted)) in &counts {
        println!("{name}: {tried} changes, {accepted} accepted with the same figures");
    }
    let of = |name: &str| counts[name];
    assert_eq!(of("assignment").1, 0, "usage was moved, and accepted");
}

/// The document without its words.
fn figures(document: &Value) -> Value {
    match document {
        Value::Object(fields) => {
            // What a tax service says of its rate is in no other place.
            let is_asked =
                fields.contains(&("category".to_owned(), Value::Text("asked".to_owned())));
            let kept = fields.iter().filter(|(key, _)| {
                let is_word = WORDS.contains(&key.as_str());
                !is_word && (!is_asked || key != "percent")
            });
            Value::Object(kept.map(|(key, value)| (key.clone(), figures(value))).collect())
        }
        Value::List(items) => {
            let mut items: Vec<_> = items.iter().map(figures).collect();
            // The order of taxes says nothing.
            if items.iter().all(|item| matches!(item, Value::Object(fields) if fields.iter().any(|(key, _)| key == "inclusive"))) {
                items.sort_by_key(written);
            }
            Value::List(items)
        }
        other => other.clone(),
    }
}

/// One change somewhere in a tree of values, in texts that are JSON too.
fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !random.chance(12) => {
            let index = random.below(fields.len());
            change(&mut fields[index].1, random);
        }
        Value::List(items) if !items.is_empty() && !random.chance(5) => {
            let index = random.below(items.len());
            change(&mut items[index], random);
        }
        Value::Text(text) if text.starts_with(['{', '[']) && !text.starts_with("[[") => {
            let mut inner = json::parse(text, "").unwrap();
            change(&mut inner, random);
            *text = written(&inner);
        }
        other => *other = changed(other, random),
    }
}

fn changed(value: &Value, random: &mut Random) -> Value {
    match value {
        Value::Null => number(0),
        Value::Bool(flag) => Value::Bool(!flag),
        Value::Integer(held) => {
            Value::Integer(held + i128::from(*random.pick(&[1, -1, 96, 1_000_000])))
        }
        Value::Text(held) => text(&changed_text(held, random)),
        Value::List(items) => {
            let mut items = items.clone();
            let (one, other) = (random.below(items.len()), random.below(items.len()));
            match random.below(3) {
                _ if items.is_empty() => items.push(number(0)),
                0 => items.swap(one, other),
                1 => items.insert(one, items[other].clone()),
                _ => drop(items.remove(one)),
            }
            Value::List(items)
        }
        Value::Object(fields) => {
            let mut fields = fields.clone();
            let (one, other) = (random.below(fields.len()), random.below(fields.len()));
            match random.below(3) {
                _ if fields.is_empty() => fields.push(("more".to_owned(), Value::Null)),
                0 => fields.swap(one, other),
                1 => fields.push(("more".to_owned(), fields[one].1.clone())),
                _ => drop(fields.remove(one)),
            }
            Value::Object(fields)
        }
    }
}

/// Another digit, letter, or length.
fn changed_text(held: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = held.chars().collect();
    let at = random.below(letters.len());
    match letters.get(at).copied() {
        None => letters.push('0'),
        Some(_) if random.chance(8) => drop(letters.remove(at)),
        Some(letter) if random.chance(8) => letters.insert(at, letter),
        Some(letter) if letter.is_ascii_digit() => {
            letters[at] = char::from(b'0' + u8::try_from(random.below(10)).unwrap());
        }
        Some(letter) => letters[at] = if letter == 'a' { 'b' } else { 'a' },
    }
    letters.into_iter().collect()
}

/// Puts a day's texts in order again, and what refers to them.
fn sort_day(proof: &mut Proof, day: usize) {
    let texts = proof.days[day].1.clone();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|index| texts[*index].clone());
    proof.days[day].1 = order.iter().map(|index| texts[*index].clone()).collect();
    let to = |index: usize| order.iter().position(|from| *from == index).unwrap_or(index);
    each_places(proof, &mut |all| {
        for (held, index) in all.iter_mut() {
            if *held == day {
                *index = to(*index);
            }
        }
        all.sort_unstable();
    });
}

/// Every list of places in the parts.
fn each_places(proof: &mut Proof, act: &mut dyn FnMut(&mut Places)) {
    let Value::List(parts) = &mut proof.parts else { panic!("parts are a list") };
    for part in parts {
        let mut apply = |value: &mut Value| {
            let mut all = read_places(value);
            act(&mut all);
            *value = places(&all);
        };
        apply(field(part, "elsewhere"));
        let Value::List(rows) = field(part, "rows") else { panic!("rows are a list") };
        rows.iter_mut().for_each(apply);
    }
}

fn read_places(value: &Value) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for pair in value.list("").unwrap() {
        let [day, texts] = pair.list("").unwrap() else { panic!("a pair") };
        for text in texts.list("").unwrap() {
            all.push((day.number("").unwrap(), text.number("").unwrap()));
        }
    }
    all
}

fn change_row(proof: &mut Proof, random: &mut Random) {
    let day = random.below(proof.days.len());
    let index = random.below(proof.days[day].1.len());
    let held = &mut proof.days[day].1[index];
    let mut row = json::parse(held, "").unwrap();
    let Value::List(items) = &mut row else { panic!("a row is a list") };
    let item = 1 + random.below(items.len() - 1);
    change(&mut items[item], random);
    *held = written(&row);
    sort_day(proof, day);
}

fn change_rows(proof: &mut Proof, random: &mut Random) {
    let day = random.below(proof.days.len());
    let index = random.below(proof.days[day].1.len());
    if random.chance(2) && proof.days[day].1.len() > 1 {
        proof.days[day].1.remove(index);
        each_places(proof, &mut |all| {
            all.retain(|at| *at != (day, index));
            for (held, place) in all.iter_mut() {
                if *held == day && *place > index {
                    *place -= 1;
                }
            }
        });
    } else {
        let copy = proof.days[day].1[index].replacen("[[", "[[\"a\",\"b\"],[", 1);
        proof.days[day].1.push(copy);
        sort_day(proof, day);
    }
}

/// Takes a text from where it is; puts it to another line, or elsewhere, or nowhere.
fn change_assignment(proof: &mut Proof, random: &mut Random) {
    let mut all = Vec::new();
    each_places(proof, &mut |places| all.extend(places.clone()));
    let moved = *random.pick(&all);
    let mut lists = 0;
    each_places(proof, &mut |_| lists += 1);
    let to = random.below(lists * 2);
    let mut list = 0;
    each_places(proof, &mut |places| {
        let was = places.contains(&moved);
        places.retain(|at| *at != moved);
        if list == to || (was && list == to % lists) {
            places.push(moved);
            places.sort_unstable();
        }
        list += 1;
    });
}

fn a_part<'p>(proof: &'p mut Proof, random: &mut Random) -> &'p mut Value {
    let Value::List(parts) = &mut proof.parts else { panic!("parts are a list") };
    let index = random.below(parts.len());
    &mut parts[index]
}

fn change_part(proof: &mut Proof, random: &mut Random) {
    let key = *random.pick(&[
        "section",
        "lines",
        "plan",
        "subscription",
        "from",
        "to",
        "trial",
        "rounding",
    ]);
    let part = a_part(proof, random);
    let held = field(part, key);
    if key == "rounding" {
        let other = if *held == text("half_up") { "half_even" } else { "half_up" };
        *held = text(other);
    } else {
        change(held, random);
    }
}

/// Another digit in a quoted number, or another word.
fn change_toml(toml: &mut String, random: &mut Random) {
    let lines: Vec<&str> = toml.lines().collect();
    let at = random.below(lines.len());
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    if random.chance(10) {
        lines.remove(at);
    } else if let Some((key, value)) = lines[at].clone().split_once(" = ") {
        lines[at] = format!("{key} = {}", changed_text(value, random));
    }
    *toml = lines.join("\n") + "\n";
}

fn change_plan(proof: &mut Proof, random: &mut Random) {
    let index = random.below(proof.plans.len());
    change_toml(&mut proof.plans[index], random);
}

fn change_subscription(proof: &mut Proof, random: &mut Random) {
    let index = random.below(proof.subscriptions.len());
    change_toml(&mut proof.subscriptions[index], random);
}

fn change_document(proof: &mut Proof, random: &mut Random) {
    change(&mut proof.document, random);
}

/// An amount, quantity or price of the document: by one in its last place.
fn change_amount(proof: &mut Proof, random: &mut Random) {
    const KEYS: [&str; 14] = [
        "amount",
        "invoiced_before",
        "total",
        "subtotal",
        "net",
        "tax",
        "amount_due",
        "credit_applied",
        "quantity",
        "unit_price",
        "fee",
        "charge",
        "billed",
        "percent",
    ];
    let mut found = 0;
    visit(&mut proof.document, &mut |key, value| {
        found += usize::from(KEYS.contains(&key) && is_number(value));
    });
    let (at, mut seen) = (random.below(found), 0);
    let up = random.chance(2);
    visit(&mut proof.document, &mut |key, value| {
        if KEYS.contains(&key) && is_number(value) {
            if seen == at {
                let last = value.pop().unwrap().to_digit(10).unwrap();
                let next = if up { (last + 1) % 10 } else { (last + 9) % 10 };
                value.push(char::from_digit(next, 10).unwrap());
            }
            seen += 1;
        }
    });
}

fn is_number(text: &str) -> bool {
    text.ends_with(|letter: char| letter.is_ascii_digit())
        && !text.contains(|letter: char| letter.is_alphabetic())
}

fn visit(value: &mut Value, act: &mut dyn FnMut(&str, &mut String)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut().filter(|(key, _)| key != "seller" && key != "cut")
            {
                match value {
                    Value::Text(text) => act(key, text),
                    other => visit(other, act),
                }
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| visit(item, act)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Text(_) => {}
    }
}

fn change_rounding(proof: &mut Proof, random: &mut Random) {
    let held = &mut proof.tax_rounding;
    *held = match random.below(2) {
        0 => Value::Null,
        _ if *held == text("half_up") => text("half_even"),
        _ => text("half_up"),
    };
}

/// The tree begins so many days of usage later.
pub(super) fn begin_later(proof: &mut Proof, days: usize) {
    proof.from_day = proof.days[days].0;
    proof.days.drain(..days);
    each_places(proof, &mut |all| {
        all.retain(|(day, _)| *day >= days);
        all.iter_mut().for_each(|(day, _)| *day -= days);
    });
}
