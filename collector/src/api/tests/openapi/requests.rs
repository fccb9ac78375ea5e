//! What may be asked, of whom, and what is refused: parameters, bodies, keys, roles, statuses.

use super::*;

#[tokio::test]
async fn parameters_are_as_described() {
    let world = october().await;
    for known in operations().into_iter().filter(|known| !known.is_open()) {
        let mut named = Vec::new();
        for parameter in known.parameters("query") {
            let mut values = known.examples();
            named.push(parameter["name"].as_str().unwrap());
            values.insert(parameter["name"].as_str().unwrap(), example(parameter));
            let target = known.target(values);
            let response = known.asked(&world, &target).await;
            assert_eq!(response.status, 200, "{target}: {}", response.body);
        }
        // Whoever refuses one names those that it takes.
        let mut values = known.examples();
        values.insert("qqqqqq", "1".to_owned());
        let target = known.target(values);
        let refused = known.asked(&world, &target).await;
        known.check(&target, &refused);
        let problem: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(problem["type"], "urn:tidemark:problem:unknown-parameter", "{target}");
        let remedy = problem["remedy"].as_str().unwrap();
        let mut taken: Vec<_> = match remedy.strip_prefix("this resource takes ") {
            Some(names) => names.split(", ").collect(),
            None => Vec::new(),
        };
        named.sort_unstable();
        taken.sort_unstable();
        assert_eq!(named, taken, "{target}: {remedy}");
    }
}

#[tokio::test]
async fn bodies_are_as_described() {
    for known in operations().into_iter().filter(|known| known.method == "post") {
        let (schema, _) = resolve(&DOCUMENT, &known.media()["schema"]);
        let body = known.media()["example"].as_object().unwrap();
        let target = known.example_target();
        let names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(
            body.keys().collect::<Vec<_>>(),
            names,
            "{target}: an example names every field"
        );
        let Checked { wrong, .. } = check(&DOCUMENT, schema, &known.media()["example"], "");
        assert_eq!(wrong, [""; 0], "{target}");
        let world = october().await;
        let ask = async |world: &World, body: &Value| {
            let response = world.post_json(&target, &body.to_string()).await;
            known.check(&target, &response);
            response
        };
        for name in &names {
            let mut without = body.clone();
            without.remove(*name);
            if schema["required"].as_array().unwrap().contains(&json!(name)) {
                let refused = ask(&world, &without.into()).await;
                assert_eq!(refused.status, 400, "{target} without {name}: {}", refused.body);
                let empty = [body.clone(), [((*name).clone(), json!(""))].into_iter().collect()];
                let empty: serde_json::Map<_, _> = empty.into_iter().flatten().collect();
                let refused = ask(&world, &empty.into()).await;
                let is_refused = [400, 422].contains(&refused.status);
                assert!(is_refused, "{target} with empty {name}: {}", refused.body);
            } else {
                // Some are needed by the others' values, which is no matter of shape.
                let answer = ask(&october().await, &without.into()).await;
                let is_read = [200, 422].contains(&answer.status);
                assert!(is_read, "{target} without {name}: {}", answer.body);
            }
        }
        let mut more = body.clone();
        more.insert("qqqqqq".to_owned(), json!(1));
        let refused = ask(&world, &more.into()).await;
        assert_eq!(refused.status, 400, "{target}");
        let (_, taken) = refused.body.split_once("expected ").unwrap();
        let (taken, _) = taken.split_once(" at line ").unwrap();
        // Whoever refuses a field names those that it takes. Over HTTP the actor is the token.
        let taken: BTreeSet<_> = taken.split('`').skip(1).step_by(2).collect();
        let taken = taken.into_iter().filter(|name| *name != "actor").collect::<Vec<_>>();
        assert_eq!(taken, names, "{target}");

        let unkeyed = world.post_keyed(&target, &known.body(), ADMIN_TOKEN, None).await;
        let needs_key = known.parameters("header").len();
        assert_eq!(unkeyed.status, if needs_key == 1 { 400 } else { 200 }, "{target}");
    }
}

#[tokio::test]
async fn roles_are_as_described() {
    let world = october().await;
    let tokens = [
        (Role::Admin, ADMIN_TOKEN),
        (Role::Billing, BILLING_TOKEN),
        (Role::Viewer, TOKEN),
        (Role::Auditor, AUDITOR_TOKEN),
    ];
    assert_eq!(tokens.map(|(role, _)| role), Role::ALL);
    for known in operations() {
        let target = known.example_target();
        if known.is_open() {
            let open = known.ask(&world, &target, "", None).await;
            assert_eq!(open.status, 200, "{target}");
            continue;
        }
        for (role, token) in tokens {
            // A body that is none: whoever may ask is told so, and nothing is done.
            let status = known.ask(&world, &target, "{", Some(token)).await.status;
            let may = known.roles().contains(&role.name());
            assert_eq!(status != 403, may, "{} {target} {role:?}: {status}", known.method);
        }
        let status = known.ask(&world, &target, "{", Some(ACME_TOKEN)).await.status;
        let is_own = known.path.starts_with("/v1/customers/{customer}");
        assert_eq!(status != 403, is_own, "{target}: {status}");
    }
}

/// What brings about each status, of whatever can have it: values of parameters, a body, a token.
async fn refusals(known: Operation, world: &World, status: u16) -> Vec<(String, Response)> {
    let (example, body) = (known.example_target(), known.body());
    let with = |name, value: &str| {
        let mut values = known.examples();
        values.insert(name, value.to_owned());
        known.target(values)
    };
    let asked: Vec<(String, &str, Option<&str>)> = match status {
        400 if known.method == "post" => vec![(example, "{", Some(ADMIN_TOKEN))],
        400 => vec![(with("qqqqqq", "1"), "", Some(ADMIN_TOKEN))],
        401 => vec![(example.clone(), "", None), (example, "", Some("wrong-0123456789"))],
        403 if known.path.contains("{customer}") => {
            vec![(with("customer", "globex"), "", Some(ACME_TOKEN))]
        }
        403 => vec![(example, "", Some(ACME_TOKEN))],
        404 if known.path.contains("{number}") => {
            vec![(with("number", "INV9"), &body, Some(ADMIN_TOKEN))]
        }
        404 if known.path.ends_with("/usage") => {
            vec![(with("meter", "nothing"), "", Some(ADMIN_TOKEN))]
        }
        404 if known.path.contains("{stream}") => {
            vec![(with("stream", &"00".repeat(16)), &body, Some(ADMIN_TOKEN))]
        }
        404 if known.path == "/v1/waivers" => {
            let body = r#"{"finding":"silent/none","reason":"r"}"#;
            vec![(example, body, Some(ADMIN_TOKEN))]
        }
        404 => vec![(with("customer", "nobody"), "", Some(ADMIN_TOKEN))],
        409 if known.method == "put" => vec![(example, "", Some(ADMIN_TOKEN))],
        // Only what another books at the same moment overtakes it.
        409 if known.path == "/v1/corrections" => Vec::new(),
        // Only a ledger that is no sandbox.
        409 if known.path == "/v1/test-clock" && known.method == "post" => Vec::new(),
        // What is done is not done again under another key.
        409 if known.method == "post" => {
            assert_eq!(known.asked(world, &example).await.status, 200, "{example}");
            vec![(example, &body, Some(ADMIN_TOKEN))]
        }
        409 => {
            world.adopt("[[customer]]\nid = \"acme\"");
            vec![(example, "", Some(ADMIN_TOKEN))]
        }
        other => panic!("nothing brings about {other}"),
    };
    let mut refused = Vec::new();
    for (target, body, token) in asked {
        let response = known.ask(world, &target, body, token).await;
        refused.push((target, response));
    }
    refused
}

#[tokio::test]
async fn refusals_are_as_described() {
    for known in operations().into_iter().filter(|known| !known.is_open()) {
        let world = october().await;
        for status in [400, 401, 403, 404, 409] {
            let is_described = known.response(status).is_some();
            for (target, response) in refusals(known, &world, status).await {
                let asked = format!("{} {target}: {status}: {}", known.method, response.body);
                assert_eq!(response.status == status, is_described, "{asked}");
                known.check(&target, &response);
            }
        }
    }
}
