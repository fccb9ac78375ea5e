//! How many datagrams the kernel dropped, from two reports of one counter.
//!
//! The kernel counts a UDP socket's drops in 32 bits that wrap. It stamps the count on each datagram
//! that it queues (`SO_RXQ_OVFL`), which says nothing of what was dropped after the last one; the
//! `drops` column of `/proc/net/udp` does. Stamps of datagrams that were queued earlier may be read
//! after a newer figure of that table, so a count that lies behind is not a drop.

use std::io;

/// Drops of one socket.
#[derive(Debug, Default)]
pub(super) struct DropCount {
    last: u32,
    total: u64,
}

impl DropCount {
    /// Takes a report of the kernel's counter.
    pub(super) fn observe(&mut self, count: u32) {
        let ahead = count.wrapping_sub(self.last);
        if ahead < 1 << 31 {
            self.last = count;
            self.total = self.total.saturating_add(u64::from(ahead));
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// The drops of the socket with this inode, as the kernel's tables list them now.
pub(super) fn listed(inode: u64) -> io::Result<Option<u32>> {
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                if let Some(drops) = find(&text, inode) {
                    return Ok(Some(drops));
                }
            }
            // A kernel without IPv6 has no second table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops`
fn find(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(9);
        let found: u64 = columns.next()?.parse().ok()?;
        if found != inode {
            return None;
        }
        let drops: u64 = columns.nth(2)?.parse().ok()?;
        // Newer kernels print more than 32 bits; the stamps hold the low ones.
        u32::try_from(drops & 0xffff_ffff).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reports: &[u32], total: u64) {
        let mut drops = DropCount::default();
        reports.iter().for_each(|&report| drops.observe(report));
        assert_eq!(drops.total(), total, "{reports:?}");
    }

    #[test]
    fn counts_wrap_and_late_stamps_count_nothing() {
        check(&[], 0);
        check(&[0, 0], 0);
        check(&[5, 5, 9], 9);
        check(&[9, 5, 10], 10);
        check(&[1 << 30, 2 << 30, 3 << 30, u32::MAX, 4], (1 << 32) + 4);
        check(&[u32::MAX], 0);
    }

    #[test]
    fn finds_the_socket_by_its_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
            7407: 00000000:DB3E 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17280 2 00000000930ab940 0\n\
            12905: 0100007F:B0B8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17279 2 0000000079245646 91\n";
        assert_eq!(find(table, 17279), Some(91));
        assert_eq!(find(table, 17280), Some(0));
        assert_eq!(find(table, 1), None);
        assert_eq!(find("", 1), None);
        assert_eq!(find("header\nshort 1\n", 1), None);
    }
}
