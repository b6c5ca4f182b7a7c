//! The states that a power cut can leave on a simulated disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::disk::{Disk, File, FileChange, write_into};
use super::random::SplitMix64;

/// Which unsynced operations survive a power cut.
///
/// Every state that these policies leave can occur on real hardware or a real file system, so the
/// engine must open all of them. Synced operations always survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutPolicy {
    /// None of them.
    LoseUnsynced,
    /// All of them.
    KeepAll,
    /// The oldest ones, as if the disk wrote strictly in order and was cut off after this many.
    KeepPrefix {
        /// Number of operations that survive, counted over all files and directories together.
        operations: usize,
    },
    /// Any of them, out of order and in parts.
    ///
    /// * Each write survives, is lost, or survives in some of its sectors, independently of the
    ///   others.
    /// * The length of a file is one it had at some time since it was last synced (or is within a
    ///   write that extended it), whether or not the data survived: lost data below the length
    ///   reads as before, or as zeros; surviving data beyond it is lost.
    /// * Changes of a name survive in order, but independently of changes of other names and of
    ///   file content. A rename survives as a whole or not at all.
    Random {
        /// The same seed gives the same state.
        seed: u64,
        /// The sector size in bytes, which a device writes atomically. 512 or 4096.
        grain: usize,
    },
}

/// The denominator of odds. Each cut draws its own odds, so that "nearly all" and "nearly none"
/// occur too.
const CHANCES: u64 = 8;

impl Disk {
    /// The disk after a power cut.
    pub(super) fn after_power_cut(&self, policy: &CutPolicy) -> Self {
        let mut disk = self.clone();
        match *policy {
            CutPolicy::LoseUnsynced => {}
            CutPolicy::KeepAll => disk.settle_before(u64::MAX),
            CutPolicy::KeepPrefix { operations } => {
                let first_lost = disk.pending_orders().get(operations).copied();
                disk.settle_before(first_lost.unwrap_or(u64::MAX));
            }
            CutPolicy::Random { seed, grain } => settle_randomly(&mut disk, seed, grain.max(1)),
        }
        disk.restart();
        disk
    }
}

fn settle_randomly(disk: &mut Disk, seed: u64, grain: usize) {
    let mut random = SplitMix64(seed);
    let odds = random.below(CHANCES + 1);
    // A change after a lost one of the same name is lost as well.
    let mut lost = BTreeSet::new();
    disk.settle_entry_changes(|change| {
        let kept = hits(&mut random, odds) && !change.names.iter().any(|(entry, _)| lost.contains(entry));
        if !kept {
            lost.extend(change.names.iter().map(|(entry, _)| entry.clone()));
        }
        kept
    });
    for file in disk.files.values_mut().filter(|file| !file.pending.is_empty()) {
        file.durable = Arc::new(random_survivor(file, &mut random, grain));
    }
}

fn random_survivor(file: &File, random: &mut SplitMix64, grain: usize) -> Vec<u8> {
    let changes = file.pending.len();
    // Lengths survive in order, data does not: the number of changes whose length survives.
    let length_changes = match random.below(3) {
        0 => 0,
        1 => changes,
        _ => random.below(changes as u64 + 1) as usize,
    };
    let odds = random.below(CHANCES + 1);
    let mut image = Vec::clone(&file.durable);
    let mut length = image.len();
    for (index, (_, change)) in file.pending.iter().enumerate() {
        match change {
            FileChange::Write { offset, bytes } => {
                let offset = *offset as usize;
                keep_some_sectors(&mut image, offset, bytes, random, (odds, grain));
                let end = offset + bytes.len();
                if index < length_changes && length < end {
                    // The last surviving extension may be cut short.
                    let cut_short = index + 1 == length_changes && hits(random, CHANCES / 2);
                    length = if cut_short {
                        random_boundary(length, end, random, grain)
                    } else {
                        end
                    };
                }
            }
            FileChange::SetLength { length: new } if index < length_changes => {
                length = *new as usize;
                image.truncate(length);
            }
            FileChange::SetLength { .. } => {}
        }
    }
    image.resize(length, 0);
    image
}

fn keep_some_sectors(
    image: &mut Vec<u8>,
    offset: usize,
    bytes: &[u8],
    random: &mut SplitMix64,
    (odds, grain): (u64, usize),
) {
    let torn = hits(random, CHANCES / 2);
    let whole_kept = hits(random, odds);
    let end = offset + bytes.len();
    let mut start = offset;
    while start < end {
        let sector_end = end.min((start / grain + 1) * grain);
        let kept = if torn { hits(random, odds) } else { whole_kept };
        if kept {
            write_into(
                image,
                start,
                bytes.get(start - offset..sector_end - offset).unwrap_or_default(),
            );
        }
        start = sector_end;
    }
}

/// A multiple of the grain above `from` and below `to`; `to` if there is none.
fn random_boundary(from: usize, to: usize, random: &mut SplitMix64, grain: usize) -> usize {
    let first = from / grain + 1;
    let after_last = to.div_ceil(grain);
    if first >= after_last {
        return to;
    }
    (first + random.below((after_last - first) as u64) as usize) * grain
}

fn hits(random: &mut SplitMix64, odds: u64) -> bool {
    random.below(CHANCES) < odds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_lies_within_the_write_or_at_its_end() {
        let mut random = SplitMix64(7);
        for _ in 0..100 {
            let boundary = random_boundary(100, 2000, &mut random, 512);
            assert!([512, 1024, 1536].contains(&boundary), "{boundary}");
        }
        assert_eq!(random_boundary(100, 200, &mut random, 512), 200);
        assert_eq!(random_boundary(0, 512, &mut random, 512), 512);
    }
}
