//! What is accepted, and that nothing else is.

mod audit;
mod books;
mod catalogue;
mod changes;
mod writer;

use super::*;
use writer::{Proof, key_pair};

fn told(proof: &Proof) -> Result<String, String> {
    let file = proof.file(&key_pair(7));
    verify_invoice(&file, None).map(|report| report.told()).map_err(|refusal| refusal.to_string())
}

#[test]
fn what_the_product_draws_up_is_accepted() {
    for seed in 0..12 {
        for (document, proof) in books::proofs(seed).iter().enumerate() {
            if let Err(refusal) = told(proof) {
                let shown = writer::written(&proof.document);
                panic!(
                    "seed {seed}, document {document}: {refusal}\n{shown}\n{}",
                    writer::written(&proof.parts)
                );
            }
        }
    }
}

#[test]
fn without_usage_there_is_no_path() {
    for seed in 0..6 {
        for proof in books::proofs_of(seed, books::WithUsage::No) {
            assert!(proof.days.is_empty());
            told(&proof).unwrap_or_else(|refusal| panic!("seed {seed}: {refusal}"));
        }
    }
}

#[test]
fn credit_notes_and_taxes_of_a_service_are_among_them() {
    let all: Vec<_> = (0..6).flat_map(books::proofs).map(|proof| told(&proof).unwrap()).collect();
    for words in [
        "credit note",
        "a service said them",
        "what earlier documents charged",
        "another plan charges",
    ] {
        assert!(all.iter().any(|told| told.contains(words)), "{words}");
    }
}

/// What is before the tree's first day is taken as it stands, and told.
#[test]
fn usage_before_the_first_day_is_not_proved() {
    let mut proof = books::proofs(2).remove(0);
    changes::begin_later(&mut proof, 9);
    let told = told(&proof).unwrap();
    assert!(told.contains("part of its usage is before the usage tree's first day"), "{told}");
}

#[test]
fn keys_are_compared_and_each_is_signed_by_the_one_before() {
    let proof = books::proofs(1).remove(0);
    let file = proof.file(&key_pair(7));
    let listed = |ledger: &[u8; 16], numbers: &[u8], signer: u8| {
        let keys = numbers.iter().enumerate().map(|(index, number)| {
            let key = writer::public(&key_pair(*number));
            let message = [&ledger[..], &tidemark_common::hex::decode(&key).unwrap()].concat();
            let signature = match index {
                0 => "null".to_owned(),
                _ => format!("\"{}\"", writer::sign(&key_pair(signer), "tidemark/key/1", &message)),
            };
            format!("{{\"key\":\"{key}\",\"from\":1,\"until\":null,\"signature\":{signature}}}")
        });
        let keys = keys.collect::<Vec<_>>().join(",");
        let ledger = tidemark_common::hex::encode(ledger);
        format!("{{\"ledger\":\"{ledger}\",\"keys\":[{keys}]}}\n")
    };
    let check = |ledger: &[u8; 16], numbers: &[u8], signer: u8, expected: &str| {
        let keys = Keys::read(listed(ledger, numbers, signer).as_bytes());
        let told =
            keys.and_then(|keys| verify_invoice(&file, Some(&keys))).map(|report| report.told());
        let told = told.unwrap_or_else(|refusal| refusal.to_string());
        assert!(told.contains(expected), "{told}, not {expected}");
    };
    check(&writer::LEDGER, &[7], 0, "published by the ledger");
    check(&writer::LEDGER, &[8, 7], 8, "published by the ledger");
    check(&writer::LEDGER, &[8, 7], 7, "key 2 of the keys: the signature is not that of the key");
    check(&writer::LEDGER, &[8], 0, "is none of the 1 that were published");
    check(&[1; 16], &[7], 0, "and the keys are of 0101");
    check(&writer::LEDGER, &[], 0, "it lists 0 keys");
}

/// What an operator would most like to change -> what is said.
#[test]
fn refusals_say_what_and_where() {
    use json::Value;
    let check = |act: &dyn Fn(&mut Proof), expected: &str| {
        let mut proof = books::proofs(2).remove(0);
        act(&mut proof);
        let refusal = told(&proof).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}, not {expected}");
    };
    let text = |text: &str| Value::Text(text.to_owned());
    check(
        &|proof| *writer::field(&mut proof.document, "total") = text("1.00"),
        "the total: it is 1.00, and what it is of comes to ",
    );
    check(
        &|proof| proof.customer = "other".to_owned(),
        "customer: it is \"other\", and the document's \"acme",
    );
    check(
        &|proof| {
            proof.plans[0] = proof.plans[0]
                .replace("name = \"Base\"\namount = \"", "name = \"Base\"\namount = \"9")
        },
        "section 1, line 1: `fee` is ",
    );
    check(&|proof| proof.plans[0].push_str("x = 1\n"), "plans[0]");
    check(&|proof| proof.days[3].1.push("[\"row\"]".to_owned()), "days[3]: text");
    check(&|proof| proof.complete_through += 1, "cut: its instants are not the certificate's");
    let file = books::proofs(2).remove(0).file(&key_pair(7));
    let told = |file: &[u8]| verify_invoice(file, None).unwrap_err().to_string();
    let mut moved = file.clone();
    moved[40] ^= 1;
    assert!(told(&moved).contains("the file: "), "{}", told(&moved));
    let cut_short = &file[..file.len() - 1];
    assert!(
        told(cut_short).contains("it does not end as an invoice's proof does"),
        "{}",
        told(cut_short)
    );
}
