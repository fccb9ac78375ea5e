//! Certificates and proofs over the worked example.

use serde_json::Value;

use crate::verify::{Keys, verify_invoice};

use super::invoices::{october, run};
use super::world::{AUDITOR_TOKEN, World, line};

/// Verifies every document that names a certificate; how many they are.
pub(super) async fn verify_all(world: &World) -> usize {
    let keys = world.get("/.well-known/tidemark-keys").await.body;
    let keys = Keys::read(keys.as_bytes()).unwrap();
    let listed = world.get("/v1/invoices?limit=1000").await.ok();
    let mut verified = Vec::new();
    for document in listed["invoices"].as_array().unwrap() {
        let number = document["number"].as_str().unwrap();
        let proof = world.get(&format!("/v1/invoices/{number}/proof")).await;
        if proof.status == 404 {
            continue;
        }
        assert_eq!(proof.status, 200, "{number}: {}", proof.body);
        if let Err(refusal) = verify_invoice(proof.body.as_bytes(), Some(&keys)) {
            panic!("{number}: {refusal}\n{}", proof.body);
        }
        verified.push(number);
    }
    verified.len()
}

pub(super) async fn audited(world: &World, target: &str) -> Value {
    world.get_with(target, Some(&format!("Bearer {AUDITOR_TOKEN}"))).await.ok()
}

#[tokio::test]
async fn each_run_that_issues_certifies_its_cut_and_each_document_names_it() {
    let world = october().await;
    world.set_clock("2026-12-02T12:00:00Z").await;
    let told = run(&world, "2026-12-01").await;
    assert_eq!(told.last().map(String::as_str), Some("3 0 0"), "{told:?}");
    let listed = audited(&world, "/v1/certificates").await;
    let heads: Vec<_> = listed["certificates"].as_array().unwrap().iter().collect();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[0]["head"]["previous"], "0".repeat(64));
    assert_eq!(heads[1]["head"]["previous"], heads[0]["sha256"]);
    for (number, certificate) in [("INV2026-000001", 0), ("INV2026-000004", 1)] {
        let bundle = world.get(&format!("/v1/invoices/{number}/proof")).await.ok();
        let document: Value = serde_json::from_str(bundle["document"].as_str().unwrap()).unwrap();
        let named = &document["cut"]["certificate"];
        assert_eq!(named["number"], heads[certificate]["head"]["number"]);
        assert_eq!(named["sha256"], heads[certificate]["sha256"]);
    }
    assert_eq!(verify_all(&world).await, 6);
}

/// Letters and figures that stand nowhere else.
struct Names(u64);

impl Names {
    fn next(&mut self) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Sixteen letters and figures, the first a letter.
    fn word(&mut self) -> String {
        format!("w{:015x}", self.next() >> 4)
    }

    /// Nine digits, the first not 0.
    fn figure(&mut self) -> String {
        (100_000_000 + self.below(900_000_000)).to_string()
    }
}

/// What nobody but its customer may read.
struct Secrets {
    customer: String,
    /// Its name, its meter, values of its dimensions, its quantities.
    words: Vec<String>,
}

/// A ledger with some customers, each with a meter, a plan and dimensions of its own; the first few are billed.
async fn random_world(seed: u64) -> (World, Vec<Secrets>) {
    let mut names = Names(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut catalog = String::from(
        "[[seller]]\nname = \"main\"\nlegal_name = \"Tide GmbH\"\naddress = [\"Am Ufer 1\"]\n",
    );
    let (mut all, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..2 + names.below(9) {
        let [customer, name, meter, plan] = std::array::from_fn(|_| names.word());
        catalog.push_str(&format!(
            "[[meter]]\nname = \"{meter}\"\naggregation = \"sum\"\ndimensions = [\"kind\"]\n[[plan]]\nname = \"{plan}\"\ncurrency = \"EUR\"\n[[plan.price]]\nmeter = \"{meter}\"\nunit_price = \"0.001\"\n[[customer]]\nid = \"{customer}\"\nname = \"{name}\"\nplan = \"{plan}\"\n"
        ));
        let mut words = vec![customer.clone(), name, meter.clone(), plan];
        for _ in 0..1 + names.below(6) {
            let (value, quantity) = (names.word(), names.figure());
            let at = format!("2026-10-{:02}T{:02}:15:00Z", 1 + names.below(28), names.below(24));
            lines.push(line(&meter, &customer, &at, &[("kind", &value)], &quantity));
            words.extend([value, quantity]);
        }
        all.push(Secrets { customer, words });
    }
    let world = World::start(&catalog, "2026-11-14T12:00:00Z").await;
    lines.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
    world.post(&lines).await;
    (world, all)
}

#[tokio::test]
async fn a_proof_holds_nothing_of_any_other_customer() {
    for seed in 1..=25 {
        let (world, all) = random_world(seed).await;
        run(&world, "2026-11-01").await;
        assert_eq!(verify_all(&world).await, all.len(), "seed {seed}");
        for own in &all {
            let listed = world.get(&format!("/v1/customers/{}/invoices", own.customer)).await.ok();
            let number = listed["invoices"][0]["number"].as_str().unwrap();
            let target = format!("/v1/customers/{}/invoices/{number}/proof", own.customer);
            let proof = world.get(&target).await.body;
            for other in &all {
                let held = |word: &&String| proof.contains(word.as_str());
                if other.customer == own.customer {
                    let missing = other.words.iter().find(|word| !held(word));
                    assert_eq!(missing, None, "seed {seed}: its own is there");
                } else {
                    let told = other.words.iter().find(held);
                    assert_eq!(
                        told, None,
                        "seed {seed}: {} tells of {}",
                        own.customer, other.customer
                    );
                }
            }
            // As long a path in a ledger of two as in one of ten.
            let proof: Value = serde_json::from_str(&proof).unwrap();
            assert_eq!(proof["path"]["siblings"].as_array().unwrap().len(), 48);
        }
    }
}
