//! Memory: flat over the long form. The rule: of each process, the median of the last quarter of the run is
//! at most a quarter and 16 MB above that of the second quarter. (The first one is the time in which caches
//! and pools fill.)

use super::Verdict;
use crate::faults::watch::Sample;

const SLACK_BYTES: u64 = 16 << 20;
/// Fewer samples say nothing.
const FEWEST: usize = 12;

/// Checks the samples of each process.
pub(crate) fn check(samples: &[Sample]) -> Verdict {
    let mut violations = Vec::new();
    let names: Vec<&str> =
        samples.first().into_iter().flat_map(|sample| &sample.resident).map(|one| one.0).collect();
    if samples.len() >= FEWEST {
        let quarter = samples.len() / 4;
        for (at, name) in names.iter().enumerate() {
            let (early, late) =
                (median(&samples[quarter..2 * quarter], at), median(&samples[samples.len() - quarter..], at));
            if let (Some(early), Some(late)) = (early, late)
                && late > early + early / 4 + SLACK_BYTES
            {
                violations.push(format!("{name} grew from {} to {} MB", early >> 20, late >> 20));
            }
        }
    }
    let looked_at = match samples.len() {
        count @ FEWEST.. => format!("{count} samples of {} processes", names.len()),
        _ => "too short a run to say".to_owned(),
    };
    Verdict { promise: "Memory is flat", looked_at, violations }
}

fn median(samples: &[Sample], at: usize) -> Option<u64> {
    let mut bytes: Vec<u64> = samples.iter().filter_map(|sample| sample.resident.get(at)?.1).collect();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(u64) -> Option<u64>) -> Vec<Sample> {
        (0..20).map(|at| Sample { at, resident: vec![("p", resident(at).map(|mb| mb << 20))] }).collect()
    }

    #[test]
    fn growth_is_found_and_noise_and_a_long_start_are_none() {
        assert_eq!(check(&samples(|at| Some(50 + 5 * at))).violations.len(), 1);
        assert!(check(&samples(|at| Some(if at < 5 { 10 } else { 100 + at % 3 }))).violations.is_empty());
        assert!(check(&samples(|at| (at % 4 != 0).then_some(100))).violations.is_empty());
        assert!(check(&samples(|at| Some(50 + 50 * at))[..8]).violations.is_empty());
    }
}
