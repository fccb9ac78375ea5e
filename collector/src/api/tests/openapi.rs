//! `openapi.json` held against the router, the handlers' answers, parameters, bodies, roles and refusals.
//!
//! **Owns** no list of routes: requests are made of the description's own examples, on the worked example's world with
//! October's invoices. A route without a description fails, and so does a description without a route.

mod answers;
mod requests;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::invoices::run;
use super::worked_example::world_with_usage;
use super::world::{ADMIN_TOKEN, AUDITOR_TOKEN, BILLING_TOKEN, Response};
use super::*;
use crate::api::Role;
use schema::{Checked, check, resolve, unknown_keywords, walk};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../openapi.json")).unwrap());

/// One method of one path, as it is described.
#[derive(Debug, Clone, Copy)]
struct Operation {
    method: &'static str,
    path: &'static str,
    is: &'static Value,
}

/// Strings by name.
type Texts = BTreeMap<&'static str, String>;

fn operations() -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, is) in methods.as_object().unwrap() {
            found.push(Operation { method, path, is });
        }
    }
    found
}

fn operation(method: &str, path: &str) -> Operation {
    let found = operations().into_iter().find(|known| known.method == method && known.path == path);
    found.unwrap_or_else(|| panic!("{method} {path} is not described"))
}

impl Operation {
    fn parameters(self, place: &str) -> Vec<&'static Value> {
        let all = self.is["parameters"].as_array().into_iter().flatten();
        let all = all.map(|parameter| resolve(&DOCUMENT, parameter).0);
        all.filter(|parameter| parameter["in"] == place).collect()
    }

    /// Examples of what the path and the query must have.
    fn examples(self) -> Texts {
        let mut examples = Texts::new();
        for parameter in self.parameters("path").into_iter().chain(self.parameters("query")) {
            if parameter["required"] == true {
                examples.insert(parameter["name"].as_str().unwrap(), example(parameter));
            }
        }
        examples
    }

    /// Path and query with these values.
    fn target(self, mut values: Texts) -> String {
        let mut target = self.path.to_owned();
        for parameter in self.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            target = target.replace(&format!("{{{name}}}"), &values.remove(name).unwrap());
        }
        let query: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { target } else { format!("{target}?{}", query.join("&")) }
    }

    fn example_target(self) -> String {
        self.target(self.examples())
    }

    fn media(self) -> &'static Value {
        &self.is["requestBody"]["content"]["application/json"]
    }

    fn body(self) -> String {
        match self.method {
            // No other may follow one by which invoices were made.
            "put" => include_str!("worked_example.toml").to_owned(),
            _ => self.media()["example"].to_string(),
        }
    }

    fn response(self, status: u16) -> Option<&'static Value> {
        let response = self.is["responses"].get(status.to_string())?;
        Some(resolve(&DOCUMENT, response).0)
    }

    /// The roles that may ask for it: none, where it asks for no token.
    fn roles(self) -> Vec<&'static str> {
        let needs = self.is.get("security").unwrap_or(&DOCUMENT["security"]);
        let needs = needs.as_array().unwrap().iter();
        let mut roles = Vec::new();
        for need in needs {
            match need["bearer"].as_array().unwrap().as_slice() {
                [] => roles.extend(Role::ALL.map(Role::name)),
                named => roles.extend(named.iter().filter_map(Value::as_str)),
            }
        }
        roles
    }

    fn is_open(self) -> bool {
        self.roles().is_empty()
    }

    async fn ask(self, world: &World, target: &str, body: &str, token: Option<&str>) -> Response {
        let bearer = token.map(|token| format!("Bearer {token}"));
        match (self.method, token) {
            ("get", _) => world.get_with(target, bearer.as_deref()).await,
            (method, None) => world.request(&method.to_uppercase(), target, None).await,
            ("put", Some(token)) => world.put(target, body, token).await,
            ("post", Some(ADMIN_TOKEN)) => world.post_json(target, body).await,
            ("post", Some(token)) => world.post_keyed(target, body, token, Some("key")).await,
            (method, _) => panic!("{method} is not asked here"),
        }
    }

    /// Asks as the description does, or for another target.
    async fn asked(self, world: &World, target: &str) -> Response {
        self.ask(world, target, &self.body(), Some(ADMIN_TOKEN)).await
    }

    /// Holds an answer against the description.
    fn check(self, target: &str, response: &Response) -> BTreeSet<String> {
        let Response { status, head, body } = response;
        let asked = format!("{} {target}: {status}", self.method);
        let described = self.response(*status);
        let described = described.unwrap_or_else(|| panic!("{asked} is not described: {body}"));
        for (header, _) in described["headers"].as_object().into_iter().flatten() {
            let header = format!("\r\n{}: ", header.to_lowercase());
            assert!(head.contains(&header), "{asked}: {header:?} is not in {head}");
        }
        let (kind, media) = described["content"].as_object().unwrap().iter().next().unwrap();
        assert!(head.contains(&format!("content-type: {kind}")), "{asked}: no {kind} in {head}");
        let values: Vec<Value> = match kind.as_str() {
            // The client of the tests reads chunks as they were sent: a length, a line.
            "application/x-ndjson" => {
                let lines = body.lines().filter(|line| line.starts_with('{'));
                lines.map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            kind if kind.ends_with("json") => vec![serde_json::from_str(body).unwrap()],
            _ => vec![Value::from(body.as_str())],
        };
        let mut seen = BTreeSet::new();
        for value in values {
            let Checked { wrong, seen: more } = check(&DOCUMENT, &media["schema"], &value, "");
            assert_eq!(wrong, [""; 0], "{asked}: {value}");
            seen.extend(more);
            if let Some(kind) = value["type"].as_str().filter(|_| *status >= 400) {
                let kind = kind.strip_prefix("urn:tidemark:problem:").unwrap();
                let told = described["description"].as_str().unwrap();
                assert!(told.contains(&format!("`{kind}`")), "{asked}: {kind} is not in {told}");
            }
        }
        seen
    }
}

fn example(parameter: &Value) -> String {
    match &parameter["example"] {
        Value::String(text) => text.clone(),
        Value::Null => panic!("{parameter} has no example"),
        other => other.to_string(),
    }
}

/// The worked example with October's invoices.
async fn october() -> World {
    let world = world_with_usage().await;
    run(&world, "2026-11-01").await;
    world
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let world = world_with_usage().await;
    let token = format!("Bearer {ADMIN_TOKEN}");
    let mut routed = BTreeSet::new();
    for (path, _) in crate::api::routes().into_iter().flat_map(|routes| routes.routes) {
        let segments = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let target = segments.collect::<Vec<_>>().join("/");
        // The router itself says which methods a path has.
        let Response { status, head, .. } = world.request("TRACE", &target, Some(&token)).await;
        assert_eq!(status, 405, "{path}");
        let allowed = head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap();
        let methods = allowed.split(',').map(str::to_lowercase);
        // Whatever is got can be asked for its head.
        let methods = methods.filter(|method| method != "head");
        routed.extend(methods.map(|method| format!("{method} {path}")));
    }
    let described: BTreeSet<_> =
        operations().iter().map(|known| format!("{} {}", known.method, known.path)).collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    let extra: Vec<_> = described.difference(&routed).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "without description {missing:?}, without route {extra:?}"
    );
    let served = world.get_with("/openapi.json", None).await.ok();
    assert_eq!(served, *DOCUMENT);
}

/// Every object of the description that is a reference, by what it names.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = value["$ref"].as_str() {
        found.insert(reference.to_owned());
    }
    let fields = value.as_object().into_iter().flat_map(|fields| fields.values());
    for inner in fields.chain(value.as_array().into_iter().flatten()) {
        references(inner, found);
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let (mut named, mut held) = (BTreeSet::new(), BTreeSet::new());
    references(&DOCUMENT, &mut named);
    for kind in ["parameters", "responses", "schemas"] {
        let components = DOCUMENT["components"][kind].as_object().unwrap();
        held.extend(components.keys().map(|name| format!("#/components/{kind}/{name}")));
    }
    assert_eq!(named, held);
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
}

#[test]
fn operations_are_named_once_and_name_what_is_in_their_paths() {
    let tags: BTreeSet<_> = DOCUMENT["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for known in operations() {
        let Operation { method, path, is } = known;
        let id = is["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is the name of two operations");
        used.insert(is["tags"][0].as_str().unwrap());
        let in_path: Vec<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let described: Vec<_> =
            known.parameters("path").iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(in_path, described, "{method} {path}");
        assert!(is["summary"].is_string() && known.response(200).is_some(), "{method} {path}");
        for (_, media) in known.response(200).unwrap()["content"].as_object().unwrap() {
            let is_named = media["schema"]["$ref"].is_string();
            let is_text = media["schema"] == json!({"type": "string"});
            assert!(
                is_named || is_text || id == "describe",
                "{method} {path} has a nameless answer"
            );
        }
        for role in known.roles() {
            assert!(Role::ALL.iter().any(|known| known.name() == role), "{method} {path}: {role}");
        }
    }
    assert_eq!(used, tags);
}

/// Schemas, each with its place.
fn walk_all(visit: &mut dyn FnMut(&'static Value, &str)) {
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        walk(schema, name, visit);
    }
}

#[test]
fn schemas_are_closed_and_made_of_what_is_checked() {
    walk_all(&mut |schema, place| {
        assert_eq!(unknown_keywords(schema), [""; 0], "{place}");
        if schema["type"] != "object" {
            return;
        }
        let is_map = schema.get("properties").is_none();
        let others = &schema["additionalProperties"];
        assert!(if is_map { others.is_object() } else { *others == false }, "{place} is open");
        for name in schema["required"].as_array().into_iter().flatten() {
            let is_described = schema["properties"].get(name.as_str().unwrap()).is_some();
            assert!(is_described, "{place}.{name} is required and not described");
        }
    });
}
