//! Merging sorted sequences: which of them has the least head.
//!
//! A tree of losers: each inner node remembers which of the two sequences that met there had the
//! greater head, so that after a head has changed only its own path is played again, with one
//! comparison for each level. A heap needs two.

/// Something with a number that decides most comparisons: a lesser one never has a greater number.
pub(super) trait Ranked: Ord {
    fn rank(&self) -> u128;
}

/// The heads of several sequences; None where a sequence has ended.
pub(super) struct Tournament<T> {
    heads: Vec<Option<T>>,
    /// Their numbers, close together in memory; of one that has ended, the greatest.
    ranks: Vec<u128>,
    /// The loser at each inner node; the first is the winner of all. Node n is above 2n and 2n + 1,
    /// and the sequences are below the last ones.
    nodes: Vec<usize>,
}

impl<T: Ranked> Tournament<T> {
    pub(super) fn new(heads: Vec<Option<T>>) -> Tournament<T> {
        let count = heads.len();
        let mut tournament = Tournament {
            ranks: heads.iter().map(|head| rank_of(head.as_ref())).collect(),
            heads,
            // Empty so far.
            nodes: vec![usize::MAX; count],
        };
        for sequence in 0..count {
            tournament.play(sequence);
        }
        tournament
    }

    /// The sequence with the least head, and that head; None if all have ended.
    pub(super) fn least(&self) -> Option<(usize, &T)> {
        let winner = *self.nodes.first()?;
        Some((winner, self.heads.get(winner)?.as_ref()?))
    }

    /// Replaces the head of a sequence, which must have been the least.
    pub(super) fn replace(&mut self, sequence: usize, head: Option<T>) {
        if let (Some(place), Some(rank)) = (self.heads.get_mut(sequence), self.ranks.get_mut(sequence)) {
            *rank = rank_of(head.as_ref());
            *place = head;
            self.play(sequence);
        }
    }

    /// Compares along the path of a sequence to the root. At an empty node it stays, until another
    /// comes.
    fn play(&mut self, sequence: usize) {
        let mut winner = sequence;
        let mut winning = self.ranks.get(sequence).copied().unwrap_or(u128::MAX);
        let mut node = (sequence + self.nodes.len()) / 2;
        while node > 0
            && let Some(place) = self.nodes.get_mut(node)
        {
            let other = *place;
            let Some(&rank) = self.ranks.get(other) else {
                *place = winner;
                return;
            };
            if rank < winning || (rank == winning && is_before(&self.heads, other, winner)) {
                *place = winner;
                (winner, winning) = (other, rank);
            }
            node /= 2;
        }
        if let Some(root) = self.nodes.first_mut() {
            *root = winner;
        }
    }
}

fn rank_of<T: Ranked>(head: Option<&T>) -> u128 {
    head.map_or(u128::MAX, T::rank)
}

/// Whether the first sequence has the lesser head. One that has ended comes after all others.
#[cold]
fn is_before<T: Ord>(heads: &[Option<T>], first: usize, second: usize) -> bool {
    let head = |sequence: usize| heads.get(sequence).and_then(Option::as_ref);
    match (head(first), head(second)) {
        (Some(first), Some(second)) => first < second,
        (first, _) => first.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Ranked for u64 {
        /// As if only some bits fitted.
        fn rank(&self) -> u128 {
            (self / 4).into()
        }
    }

    #[test]
    fn sequences_are_merged_whatever_their_number_and_lengths() {
        for count in 0..40 {
            // Some are empty, some have equal heads.
            let sequences: Vec<Vec<u64>> = (0..count)
                .map(|sequence| (0..sequence * 7 % 12).map(|number| number * 3 + sequence % 5).collect())
                .collect();
            let mut walks: Vec<_> = sequences.iter().map(|sequence| sequence.iter().copied()).collect();
            let mut tournament = Tournament::new(walks.iter_mut().map(Iterator::next).collect());
            let mut merged = Vec::new();
            while let Some((sequence, head)) = tournament.least() {
                merged.push(*head);
                let next = walks[sequence].next();
                tournament.replace(sequence, next);
            }
            let mut sorted = sequences.concat();
            sorted.sort_unstable();
            assert_eq!(merged, sorted, "{count} sequences");
        }
    }
}
