//! The choice of store files of a family to merge next, without I/O.
//!
//! It follows HBase's ratio policy. From the files in order of age, it takes a run of neighbours
//! whose largest file is not much larger than all the others together, so that each byte is
//! rewritten a logarithmic number of times.

/// How files are chosen.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPolicy {
    /// Runs with fewer files are not merged.
    pub files_min: usize,
    /// The maximum number of files to merge at once.
    pub files_max: usize,
    /// The maximum size of each file in a run, in percent of the other files together.
    pub ratio_percent: u64,
    /// Files below this size, in bytes, are merged regardless of the ratio.
    pub small_bytes: u64,
}

/// A choice: the files from `first` to before `end`, in the order of age.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// The oldest file of the run.
    pub first: usize,
    /// One past the newest file.
    pub end: usize,
    /// Whether these are all files of the family.
    pub all_files: bool,
}

// === impl CompactionPolicy ===

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { files_min: 3, files_max: 10, ratio_percent: 120, small_bytes: 16 << 20 }
    }
}

impl CompactionPolicy {
    /// Chooses among files of these `lengths` in bytes, oldest first; `None` if no run qualifies.
    /// Of the runs that qualify, it chooses one with the most files, and among those the smallest.
    pub fn choose(&self, lengths: &[u64]) -> Option<Choice> {
        let mut best: Option<(Choice, u64)> = None;
        for first in 0..lengths.len() {
            for end in first + self.files_min..=lengths.len().min(first + self.files_max) {
                let run = lengths.get(first..end).unwrap_or_default();
                let total: u64 = run.iter().sum();
                if !self.qualifies(run, total) {
                    continue;
                }
                let better = best.as_ref().is_none_or(|(choice, best_total)| {
                    let files = choice.end - choice.first;
                    run.len() > files || (run.len() == files && total < *best_total)
                });
                if better {
                    let all_files = run.len() == lengths.len();
                    best = Some((Choice { first, end, all_files }, total));
                }
            }
        }
        best.map(|(choice, _)| choice)
    }

    fn qualifies(&self, run: &[u64], total: u64) -> bool {
        run.iter().all(|length| {
            *length < self.small_bytes || *length <= (total - length) * self.ratio_percent / 100
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn choose(mebibytes: &[u64]) -> Option<(usize, usize)> {
        let lengths: Vec<u64> = mebibytes.iter().map(|length| length * MIB).collect();
        CompactionPolicy::default().choose(&lengths).map(|choice| (choice.first, choice.end))
    }

    #[test]
    fn few_files_are_left_alone() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[1, 1]), None);
    }

    #[test]
    fn small_neighbours_are_merged() {
        assert_eq!(choose(&[1, 2, 1]), Some((0, 3)));
    }

    #[test]
    fn a_large_old_file_is_not_rewritten_for_small_new_ones() {
        assert_eq!(choose(&[1000, 20, 20, 20]), Some((1, 4)));
    }

    #[test]
    fn files_of_one_size_are_merged_together() {
        assert_eq!(choose(&[100, 100, 100, 100]), Some((0, 4)));
    }

    #[test]
    fn no_more_than_the_limit_are_merged_at_once() {
        let choice = CompactionPolicy::default().choose(&[MIB; 25]).unwrap();
        assert_eq!(choice.end - choice.first, 10);
        assert!(!choice.all_files);
    }
}
