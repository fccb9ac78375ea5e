//! Which known key a misspelt one was probably meant to be.

/// Among `known`, the word most like `word`; `None` if all differ too much to be a slip.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tail = |path: &str| path.rsplit_once('.').map_or(path, |(_, name)| name).to_owned();
    let (distance, best) = known
        .map(|candidate| {
            // A right name in the wrong section is closer than any wrong name.
            let distance =
                if tail(word) == tail(candidate) { 0 } else { edit_distance(word, candidate) };
            (distance, candidate)
        })
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / 3).max(2)).then_some(best)
}

/// How many letters must be added, removed or changed to get from `from` to `to`.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, left) in from.chars().enumerate() {
        let mut corner = row;
        let mut last = row.saturating_add(1);
        above[0] = last;
        for (right, cell) in to.iter().zip(above.iter_mut().skip(1)) {
            let changed = corner.saturating_add(usize::from(left != *right));
            let shifted = last.min(*cell).saturating_add(1);
            corner = *cell;
            last = changed.min(shifted);
            *cell = last;
        }
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, distance) in [
            ("", "", 0),
            ("", "ab", 2),
            ("linger", "linger", 0),
            ("lnger", "linger", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
            assert_eq!(edit_distance(to, from), distance, "{to} {from}");
        }
    }

    #[test]
    fn only_a_slip_has_a_closest_word() {
        let known = ["journal.linger", "journal.linger_max", "uplink.ca"];
        let check =
            |word, expected| assert_eq!(closest(word, known.into_iter()), expected, "{word}");
        check("journal.lingr", Some("journal.linger"));
        check("linger_max", Some("journal.linger_max"));
        check("doors.ca", Some("uplink.ca"));
        check("flux.capacitor", None);
    }
}
