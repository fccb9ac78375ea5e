//! Reads `[identities]` and `[[identity]]`: which agents may bill whom.
//!
//! Every table says all three keys: one that was left out must not come to mean everything.

use crate::document::{Located, Problems, Table, closest};
use crate::grants::{
    Grants, IDENTITIES_MAX, Identity, NAMES_MAX, Otherwise, Pattern, Patterns, WILDCARDS_MAX,
};

const DEFAULTS: [(&str, Otherwise); 2] = [("allow", Otherwise::Allow), ("deny", Otherwise::Deny)];

pub(super) fn grants(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Grants {
    let otherwise = root.table("identities", problems).map_or(Otherwise::Allow, |mut table| {
        let text = table.required_text("default", "allow", problems);
        table.finish(problems);
        text.map_or(Otherwise::Deny, |text| otherwise(&text, problems))
    });
    let mut identities = Vec::new();
    for mut table in root.tables("identity", problems) {
        let span = table.span.clone();
        let name = table.required_text("name", "shop-*", problems);
        let name = name.and_then(|name| pattern(&name, problems));
        let meters = patterns(&mut table, ("identity", "meters"), problems);
        let customers = patterns(&mut table, ("identity", "customers"), problems);
        table.finish(problems);
        if let (Some(name), Some(meters), Some(customers)) = (name, meters, customers) {
            identities.push(Identity { name, meters, customers });
        }
        if identities.len() == IDENTITIES_MAX.saturating_add(1) {
            let message = format!("there are more than {IDENTITIES_MAX} identities");
            problems.report(span, message, "use a `*` in `name` for those that may do the same");
        }
    }
    Grants { otherwise, identities }
}

fn otherwise(text: &Located<String>, problems: &mut Problems<'_>) -> Otherwise {
    if let Some((_, otherwise)) = DEFAULTS.iter().find(|(name, _)| *name == text.value) {
        return *otherwise;
    }
    let remedy = match closest(&text.value, DEFAULTS.iter().map(|(name, _)| *name)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "write \"allow\" or \"deny\"".to_owned(),
    };
    problems.report(text.span.clone(), format!("`identities.default` is {:?}", text.value), remedy);
    Otherwise::Deny
}

pub(super) fn patterns(
    table: &mut Table<'_>,
    (what, key): (&str, &'static str),
    problems: &mut Problems<'_>,
) -> Option<Patterns> {
    let listed = table.texts(key, problems);
    if listed.is_empty() {
        let message = format!("the {what} lists no {key}");
        problems.report(table.span.clone(), message, format!("add {key} = [\"*\"] to allow all"));
        return None;
    }
    if let Some(extra) = listed.get(NAMES_MAX) {
        let message = format!("the {what} lists {} {key}", listed.len());
        problems.report(extra.span.clone(), message, format!("keep at most {NAMES_MAX}"));
        return None;
    }
    let wild = listed.iter().filter(|text| text.value.contains('*'));
    if let Some(extra) = wild.clone().nth(WILDCARDS_MAX) {
        let message = format!("the {what} lists {} {key} with a `*`", wild.count());
        problems.report(extra.span.clone(), message, format!("keep at most {WILDCARDS_MAX}"));
        return None;
    }
    Some(Patterns::new(listed.iter().filter_map(|text| pattern(text, problems))))
}

fn pattern(text: &Located<String>, problems: &mut Problems<'_>) -> Option<Pattern> {
    match Pattern::parse(&text.value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("the pattern {:?} {error}", text.value);
            problems.report(
                text.span.clone(),
                message,
                "write 1 to 128 bytes of printable text, in which `*` stands for any text",
            );
            None
        }
    }
}
