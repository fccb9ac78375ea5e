//! Certificates against archives: built by a writer of its own, accepted, and refused once anything differs.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ring::hmac;
use tempfile::TempDir;
use tidemark_common::batch::Body;
use tidemark_common::hex;
use tidemark_common::id::LedgerId;

use super::super::json::Value;
use super::writer::{
    LEDGER, Random, customer_digest, field, key_pair, number, object, public, sha, sign, text,
    written,
};
use crate::archive::manifest::{Kind, Manifest, NO_DIGEST, digest, manifest_name, object_name};
use crate::archive::read::Archive;
use crate::archive::segment::{ArchivedBatch, Put, Puts, SegmentWriter, encode_books};
use crate::ledger::conformance::Journal;
use crate::verify::{Refusal, verify_certificate};

const SALT: [u8; 32] = [0x5a; 32];
const CUSTOMERS: [&str; 5] = ["acme", "b\"q", "Zoë", "d", "e"];
const METERS: [&str; 3] = ["calls", "seats", "storage.gib"];
/// Where usage of the tests begins, and where the tree does.
const BUCKETS: u32 = 2_000_000;
const FROM_DAY: u32 = BUCKETS / 96 + 1;

/// What an archive and a certificate hold.
#[derive(Debug, Clone)]
struct World {
    batches: Vec<ArchivedBatch>,
    /// Customer, bucket, entry, row.
    corrections: Vec<Correction>,
    statement: Value,
    streams: Vec<String>,
}

fn world(seed: u64) -> World {
    let mut random = Random(seed);
    let mut journals = [Journal::new(1, LedgerId(LEDGER)), Journal::new(2, LedgerId(LEDGER))];
    let mut batches = Vec::new();
    let mut aside = [0_u64; 2];
    for position in 0..6 {
        let stream = random.below(2);
        let uses: Vec<_> = (0..random.below(12))
            .map(|_| {
                let bucket = BUCKETS + u32::try_from(random.below(400)).unwrap();
                let units = if random.chance(9) {
                    i128::MAX / 200
                } else {
                    i128::from(random.next() % 1000) - 100
                };
                let units = units.min(10_i128.pow(24) - 1);
                (*random.pick(&CUSTOMERS), *random.pick(&METERS), bucket, units)
            })
            .collect();
        let sealed = journals[stream].seal(&uses);
        let quarantined = (position == 3).then(|| "unreadable".to_owned());
        if quarantined.is_some() {
            aside[stream] += u64::try_from(uses.len()).unwrap();
        }
        let mut marks = vec![u8::try_from(random.below(256)).unwrap(); uses.len() / 8];
        marks.retain(|mark| *mark != 0);
        batches.push(ArchivedBatch {
            position,
            agent: format!("web-{stream}"),
            marks,
            quarantined,
            judged: Vec::new(),
            header: sealed.header,
            bytes: sealed.bytes,
        });
    }
    let corrections = corrections();
    let streams = streams(&batches, aside);
    let statement = statement(&batches, &corrections, streams.len(), aside.iter().sum());
    World { batches, corrections, statement, streams }
}

type Correction = (&'static str, u32, u64, String);

fn corrections() -> Vec<Correction> {
    let row = |entry: u64, bucket: u32| {
        format!(
            "{{\"kind\":\"take\",\"meter\":\"calls\",\"dimensions\":{{\"a\":\"b\"}},\"bucket\":{bucket},\"events\":{entry},\"quantity_events\":1,\"sum\":\"12.5\"}}"
        )
    };
    let late = BUCKETS + 300;
    vec![
        ("acme", late, 2, row(2, late)),
        ("only-corrected", late + 96, 3, row(3, late + 96)),
        // Beyond the certificate's entries, and before its first day.
        ("acme", late, 9, row(9, late)),
        ("acme", BUCKETS, 4, row(4, BUCKETS)),
    ]
}

fn statement(
    batches: &[ArchivedBatch],
    corrections: &[Correction],
    listed: usize,
    quarantined: u64,
) -> Value {
    let usage = usage(&texts(batches, corrections));
    let events: u64 = batches.iter().map(|batch| batch.header.events()).sum();
    object([
        ("format", text("tidemark statement 1")),
        ("salt", text(&hex::encode(&SALT))),
        ("usage", usage),
        (
            "streams",
            object([
                ("listed", number(listed)),
                ("open", number(1)),
                ("closed", number(2)),
                ("lost", number(0)),
                ("conflict", number(0)),
                ("accepted", number(events + 3)),
                ("posted", number(events - quarantined)),
                ("quarantined", number(quarantined)),
                ("in_transit", number(3)),
            ]),
        ),
        ("evidence", object([("accepted", number(events))])),
        ("duplicates", number(0)),
        ("findings", Value::List(Vec::new())),
        ("waivers", Value::List(Vec::new())),
        ("policies", Value::List(Vec::new())),
    ])
}

fn streams(batches: &[ArchivedBatch], aside: [u64; 2]) -> Vec<String> {
    let mut texts = Vec::new();
    for stream in [1_u8, 2, 3] {
        let last = batches.iter().rfind(|batch| batch.header.stream.0 == [stream; 16]);
        let genesis = sha(&[b"tidemark/genesis/1", &LEDGER, &[stream; 16]]);
        let (count, last_digest, end) = last.map_or((0, genesis, 0), |batch| {
            (batch.header.sequence.0, batch.header.digest().0, batch.header.end_event.0)
        });
        let aside = aside.get(usize::from(stream) - 1).copied().unwrap_or(0);
        texts.push(written(&Value::List(vec![
            text(&hex::encode(&[stream; 16])),
            text("web"),
            text("open"),
            number(count.min(1)),
            number(count),
            text(&hex::encode(&last_digest)),
            number(end),
            number(end + 1),
            number(aside),
        ])));
    }
    texts
}

/// Of each customer and day, the texts; a row's with its meter, class, events and units.
type Texts = BTreeMap<String, BTreeMap<u32, Vec<(String, Option<(String, String, u64, i128)>)>>>;

fn texts(batches: &[ArchivedBatch], corrections: &[Correction]) -> Texts {
    let mut values: BTreeMap<_, Vec<(i128, [u8; 16])>> = BTreeMap::new();
    for batch in batches.iter().filter(|batch| batch.quarantined.is_none()) {
        let lines = Body::open(&batch.header, batch.body()).unwrap().lines;
        for (index, line) in lines.iter().enumerate() {
            let is_marked =
                batch.marks.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0);
            let class = if is_marked { "unauthorised" } else { "normal" };
            let key = &line.key;
            let key = (
                key.customer.as_str().to_owned(),
                key.meter.as_str().to_owned(),
                class,
                key.bucket.0,
            );
            values.entry(key).or_default().push((line.value.sum.0, line.value.uniques[0]));
        }
    }
    let mut texts = Texts::new();
    let mut add = |customer: String, bucket: u32, line| {
        if bucket / 96 >= FROM_DAY {
            texts.entry(customer).or_default().entry(bucket / 96).or_default().push(line);
        }
    };
    for ((customer, meter, class, bucket), all) in values {
        let (units, count) = (all.iter().map(|(units, _)| *units), all.len());
        let (sum, min, max) =
            (units.clone().sum::<i128>(), units.clone().min().unwrap(), units.max().unwrap());
        let uniques: BTreeSet<_> =
            all.iter().map(|(_, unique)| format!("\"0001{}\"", hex::encode(unique))).collect();
        let uniques = uniques.into_iter().collect::<Vec<_>>().join(",");
        let line = format!(
            "[\"row\",\"{meter}\",[],\"{class}\",{bucket},{count},{count},{count},\"{sum}\",\"{min}\",\"{max}\",[{},\"{max}\"],[{uniques}]]",
            u64::from(bucket) * 900_000
        );
        let count = u64::try_from(count).unwrap();
        add(customer, bucket, (line, Some((meter, class.to_owned(), count, sum))));
    }
    for (customer, bucket, entry, _) in corrections.iter().filter(|(_, _, entry, _)| *entry <= 5) {
        let line = format!(
            "[\"correction\",{entry},\"take\",\"calls\",[[\"a\",\"b\"]],{bucket},{entry},1,\"12500000000\"]"
        );
        add((*customer).to_owned(), *bucket, (line, None));
    }
    texts.values_mut().flat_map(BTreeMap::values_mut).for_each(|texts| texts.sort());
    texts
}

fn usage(texts: &Texts) -> Value {
    let all = || texts.values().flat_map(BTreeMap::values).flatten();
    let mut meters: BTreeMap<(String, String), (usize, u64, i128)> = BTreeMap::new();
    for (meter, class, events, units) in all().filter_map(|(_, row)| row.clone()) {
        let held = meters.entry((meter, class)).or_default();
        *held = (held.0 + 1, held.1 + events, held.2 + units);
    }
    let meters = meters.into_iter().map(|((meter, class), (rows, events, sum))| {
        object([
            ("meter", text(&meter)),
            ("class", text(&class)),
            ("rows", number(rows)),
            ("events", number(events)),
            ("sum", text(&sum.to_string())),
        ])
    });
    object([
        ("customers", number(texts.len())),
        ("days", number(texts.values().map(BTreeMap::len).sum::<usize>())),
        ("rows", number(all().filter(|(_, row)| row.is_some()).count())),
        ("corrections", number(all().filter(|(_, row)| row.is_none()).count())),
        ("meters", Value::List(meters.collect())),
    ])
}

fn tag(pieces: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SALT), &pieces.concat()).as_ref().to_vec()
}

/// The root, level by level from below: by prefix the nodes that are not empty.
fn usage_root(texts: &Texts) -> [u8; 32] {
    let mut level: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    for (customer, days) in texts {
        let position = tag(&[b"tidemark/position/1", customer.as_bytes()])[..6].to_vec();
        let days: Vec<_> = days
            .iter()
            .map(|(day, texts)| {
                (*day, texts.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>())
            })
            .collect();
        let at = position.iter().fold(0, |at, byte| (at << 8) | u64::from(*byte));
        level.insert(at, sha(&[&[0], &position, &customer_digest(customer, &days)]));
    }
    for depth in (0..48_u8).rev() {
        let shift = 47 - depth;
        let mut above = BTreeMap::new();
        for parent in level.keys().map(|at| at >> 1).collect::<BTreeSet<_>>() {
            let child = |at: u64| {
                level.get(&at).copied().unwrap_or_else(|| {
                    let prefix = (at << shift).to_be_bytes();
                    tag(&[b"tidemark/empty/1", &[depth + 1], &prefix[2..]]).try_into().unwrap()
                })
            };
            above.insert(parent, sha(&[&[1], &child(parent << 1), &child((parent << 1) | 1)]));
        }
        level = above;
    }
    level[&0]
}

fn streams_root(texts: &[String]) -> [u8; 32] {
    let leaf = |text: &String| sha(&[&[0], text.as_bytes()]);
    let [a, b, c] = [0, 1, 2].map(|index| leaf(&texts[index]));
    sha(&[&[1], &sha(&[&[1], &a, &b]), &c])
}

impl World {
    fn certificate(&self) -> Vec<u8> {
        let key = key_pair(7);
        let statement = written(&self.statement);
        let head = object([
            ("format", text("tidemark certificate 1")),
            ("ledger", text(&hex::encode(&LEDGER))),
            ("number", number(1)),
            ("previous", text(&"0".repeat(64))),
            ("at", number(5)),
            ("as_of", number(6)),
            ("complete_through", Value::Null),
            ("from_day", number(FROM_DAY)),
            ("batches", number(6)),
            ("entries", number(5)),
            ("entries_digest", text(&"2b".repeat(32))),
            (
                "usage_root",
                text(&hex::encode(&usage_root(&texts(&self.batches, &self.corrections)))),
            ),
            ("streams_root", text(&hex::encode(&streams_root(&self.streams)))),
            ("statement_sha256", text(&hex::encode(&sha(&[statement.as_bytes()])))),
            ("key", text(&public(&key))),
        ]);
        let head = written(&head);
        let signature = sign(&key, "tidemark/certificate/1", head.as_bytes());
        let file = object([
            ("head", text(&head)),
            ("signature", text(&signature)),
            ("statement", text(&statement)),
        ]);
        (written(&file) + "\n").into_bytes()
    }

    fn archive(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (mut previous, mut number) = (NO_DIGEST.to_owned(), 0);
        let mut put = |kind: Kind, object: Vec<u8>, (first, last, count): (u64, u64, u64)| {
            number += 1;
            let sha256 = digest(&object);
            let manifest = Manifest {
                format: 1,
                number,
                previous: previous.clone(),
                ledger: hex::encode(&LEDGER),
                incarnation: 1,
                ledger_time_limit: 1,
                kind,
                object: object_name(kind, number, &sha256),
                bytes: object.len() as u64,
                sha256,
                count,
                first,
                last,
                events: 0,
                entries: 0,
            };
            let encoded = manifest.encode();
            previous = digest(&encoded);
            for (name, bytes) in [(manifest.object, object), (manifest_name(number), encoded)] {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        };
        for batch in &self.batches {
            let mut segment = SegmentWriter::new(Kind::Batches);
            segment.record(&batch.encode());
            put(Kind::Batches, segment.finish().unwrap(), (batch.position, batch.position, 1));
        }
        let mut segment = SegmentWriter::new(Kind::Books);
        let puts = self.corrections.iter().map(|(customer, bucket, entry, row)| {
            let length = u16::try_from(customer.len()).unwrap().to_be_bytes();
            let key = [
                b"k",
                &length[..],
                customer.as_bytes(),
                &bucket.to_be_bytes(),
                &entry.to_be_bytes(),
            ];
            Put { table: 7, key: key.concat(), value: Some(row.clone().into_bytes()) }
        });
        segment.record(&encode_books(1, &Puts(puts.collect()).encode()));
        put(Kind::Books, segment.finish().unwrap(), (1, 1, 1));
        folder
    }

    fn verify(&self, certificate: &[u8]) -> Result<String, Refusal> {
        self.verify_in(self.archive().path(), certificate)
    }

    fn verify_in(&self, folder: &Path, certificate: &[u8]) -> Result<String, Refusal> {
        let archive = Archive::in_folder(folder).unwrap();
        let streams = self.streams.iter().map(|text| format!("{text}\n")).collect::<String>();
        verify_certificate(certificate, &archive, Some(streams.as_bytes()), None)
            .map(|report| report.told())
    }
}

#[test]
fn an_archive_comes_to_its_certificate() {
    for seed in 0..30 {
        let world = world(seed);
        let told = world
            .verify(&world.certificate())
            .unwrap_or_else(|refusal| panic!("seed {seed}: {refusal}"));
        assert!(told.contains("6 batches of") && told.contains("2 corrections"), "{told}");
    }
}

#[test]
fn every_changed_byte_of_a_certificate_is_refused() {
    let world = world(3);
    let folder = world.archive();
    let certificate = world.certificate();
    let mut random = Random(9);
    for _ in 0..1_000 {
        let mut changed = certificate.clone();
        let at = random.below(changed.len());
        changed[at] ^= 1 << random.below(8);
        assert!(world.verify_in(folder.path(), &changed).is_err(), "byte {at}");
        changed.truncate(at);
        assert!(world.verify_in(folder.path(), &changed).is_err(), "the first {at} bytes");
    }
}

/// Something is done to a world whose certificate stays as it was -> what is said.
fn check(act: impl FnOnce(&mut World), expected: &str) {
    let mut changed = world(3);
    let certificate = changed.certificate();
    act(&mut changed);
    let told = changed.verify(&certificate).unwrap_err().to_string();
    assert!(told.contains(expected), "{told}, not {expected}");
}

#[test]
fn what_differs_is_named() {
    check(|world| drop(world.batches.pop()), "it has 5 batches, and the certificate counts 6");
    check(
        |world| {
            let last = world.batches.last_mut().unwrap();
            let at = last.bytes.len() - 1;
            last.bytes[at] ^= 1;
        },
        "failed to read a batch body",
    );
    check(
        |world| {
            world
                .batches
                .iter_mut()
                .for_each(|batch| batch.marks = vec![0xff; batch.header.lines.div_ceil(8) as usize])
        },
        "the statement's ",
    );
    check(|world| world.batches[3].quarantined = None, "the statement's ");
    check(
        |world| world.batches.iter_mut().for_each(|batch| batch.judged = vec![2, 0, 0, 0, 0]),
        "judged by more than this version knows",
    );
    // Its first line came before, and is not billed.
    let suppressed = |batch: &mut ArchivedBatch| {
        batch.marks.clear();
        batch.judged = ArchivedBatch::judged_of(&[0; 32]);
    };
    check(|world| world.batches.iter_mut().for_each(suppressed), "the statement's ");
    let no_line = |batch: &mut ArchivedBatch| batch.judged = ArchivedBatch::judged_of(&[255; 32]);
    check(|world| world.batches.iter_mut().for_each(no_line), "is no list of its lines");
    check(|world| drop(world.corrections.remove(0)), "corrections");
    check(
        |world| {
            let (_, _, _, row) = &mut world.corrections[0];
            *row = row.replace("12.5", "12.6");
        },
        "the usage tree",
    );
    check(|world| world.streams[0] = world.streams[0].replace("web", "wob"), "`streams_root`");
    check(|world| world.streams.swap(0, 1), "streams do not ascend");
    check(|world| drop(world.streams.pop()), "`streams_root`");
}

/// The operator signs a statement of other sums.
#[test]
fn a_statement_of_other_sums_is_refused() {
    let mut random = Random(11);
    let world = world(3);
    let folder = world.archive();
    for _ in 0..200 {
        let mut changed = world.clone();
        let key = *random.pick(&["customers", "days", "rows", "corrections", "meters"]);
        let place = field(field(&mut changed.statement, "usage"), key);
        match place {
            Value::Integer(held) => *held += *random.pick(&[1, -1]),
            Value::List(meters) => {
                let meter = random.below(meters.len());
                match *random.pick(&["rows", "events", "sum", "gone"]) {
                    "gone" => drop(meters.remove(meter)),
                    "sum" => *field(&mut meters[meter], "sum") = text("1"),
                    key => *field(&mut meters[meter], key) = number(77),
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(changed.verify_in(folder.path(), &changed.certificate()).is_err(), "{key}");
    }
}

#[test]
fn a_folder_without_an_archive_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(1);
    let told = world.verify_in(folder.path(), &world.certificate()).unwrap_err().to_string();
    assert!(told.contains("there is no manifest"), "{told}");
}
