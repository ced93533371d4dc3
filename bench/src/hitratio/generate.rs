//! Generated traces, each for one habit of readers.

use memcache::ENTRY_OVERHEAD_BYTES;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, LogNormal, Zipf};
use wire::Key;

use super::trace::{Request, Trace};

/// The keys that readers know.
const KEYS: u32 = 1 << 14;
/// Further keys, that only scans ask for.
const COLD_KEYS: u32 = 1 << 14;
/// The weight of every image in bytes, with its key and its bookkeeping: a thumbnail's size. 64 fit into a megabyte.
const WEIGHT: u64 = 16 << 10;
/// The length of every key.
const KEY_BYTES: u64 = 8;

/// Every generated trace, each of `requests` requests.
pub(super) fn all(seed: u64, requests: u32) -> Vec<Trace> {
    let zipf = |exponent: f64| {
        let name = format!("Zipf {exponent:.1}");
        let about = format!("Zipf-distributed popularity with the exponent {exponent:.1}, always the same");
        let mut draw = Popularity::new(seed, exponent);
        trace(name, about, requests, move |_| draw.key())
    };
    let mut traces: Vec<Trace> = [0.6, 0.8, 1.0, 1.2].into_iter().map(zipf).collect();
    traces.push(trace(
        "Loop".to_owned(),
        format!("The same {} keys in the same order again and again", KEYS / 2),
        requests,
        |at| at % (KEYS / 2),
    ));
    traces.push({
        let mut draw = Popularity::new(seed, 0.9);
        trace(
            "Scans".to_owned(),
            "Zipf 0.9, and after each 20,000 requests a pass over the next 4,096 of 16,384 other keys"
                .to_owned(),
            requests,
            move |at| {
                let (round, within) = (at / 24_096, at % 24_096);
                if within < 20_000 { draw.key() } else { KEYS + (round * 4096 + within - 20_000) % COLD_KEYS }
            },
        )
    });
    traces.push({
        let mut draw = Popularity::new(seed, 0.9);
        trace(
            "Shifting popularity".to_owned(),
            "Zipf 0.9, and every 25,000 requests the least popular sixteenth of the keys becomes the most popular one, before \
             all others".to_owned(),
            requests,
            move |at| {
                if at % 25_000 == 0 {
                    draw.shift();
                }
                draw.key()
            },
        )
    });
    traces.push({
        let mut draw = Popularity::new(seed, 0.9);
        let mut dice = SmallRng::seed_from_u64(seed ^ 1);
        let (mut looped, mut scanned) = (0, 0);
        trace(
            "Mix".to_owned(),
            "Of ten requests seven by Zipf 0.9, two in a loop over 4,096 of the keys, one in a scan of 16,384 other \
             keys"
            .to_owned(),
            requests,
            move |_| match dice.random_range(0..10) {
                0..7 => draw.key(),
                7..9 => {
                    looped = (looped + 1) % 4096;
                    looped
                }
                _ => {
                    scanned = (scanned + 1) % COLD_KEYS;
                    KEYS + scanned
                }
            },
        )
    });
    traces.push({
        let mut draw = Popularity::new(seed, 0.9);
        let mut sized = trace(
            "Sizes".to_owned(),
            "Zipf 0.9 with sizes of renditions: log-normal, median 12 kB, from 500 B to 8 MB".to_owned(),
            requests,
            move |_| draw.key(),
        );
        let sizes = sizes(seed);
        for request in &mut sized.requests {
            request.bytes = sizes[request.key as usize];
        }
        sized
    });
    traces
}

/// A trace of equal weights, whose request number `at` is for the key `next(at)`.
fn trace(name: String, about: String, requests: u32, mut next: impl FnMut(u32) -> u32) -> Trace {
    let bytes = WEIGHT - KEY_BYTES - ENTRY_OVERHEAD_BYTES;
    let mut places = vec![u32::MAX; (KEYS + COLD_KEYS) as usize];
    let mut keys = Vec::new();
    let requests = (0..requests)
        .map(|at| {
            let number = next(at);
            let place = &mut places[number as usize];
            if *place == u32::MAX {
                *place = keys.len() as u32;
                keys.push(key(number));
            }
            Request { key: *place, bytes }
        })
        .collect();
    Trace { name, about, keys, requests }
}

fn key(number: u32) -> Key {
    #[expect(clippy::expect_used, reason = "digits are a key")]
    Key::new(&format!("{number:08}")).expect("digits are a key")
}

/// The size of each image, in bytes.
fn sizes(seed: u64) -> Vec<u64> {
    #[expect(clippy::expect_used, reason = "both parameters are finite")]
    let sizes = LogNormal::new(12_000_f64.ln(), 1.0).expect("a log-normal distribution");
    let mut dice = SmallRng::seed_from_u64(seed ^ 2);
    (0..KEYS).map(|_| (sizes.sample(&mut dice) as u64).clamp(500, 8_000_000)).collect()
}

/// Draws keys whose popularity is Zipf-distributed; which key has which rank is drawn too.
struct Popularity {
    dice: SmallRng,
    ranks: Zipf<f64>,
    keys: Vec<u32>,
}

impl Popularity {
    fn new(seed: u64, exponent: f64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let mut keys: Vec<u32> = (0..KEYS).collect();
        keys.shuffle(&mut dice);
        #[expect(clippy::expect_used, reason = "both parameters are positive")]
        let ranks = Zipf::new(f64::from(KEYS), exponent).expect("a Zipf distribution");
        Self { dice, ranks, keys }
    }

    fn key(&mut self) -> u32 {
        self.keys[self.ranks.sample(&mut self.dice) as usize - 1]
    }

    /// Puts the least popular sixteenth of the keys before all others.
    fn shift(&mut self) {
        let step = self.keys.len() / 16;
        self.keys.rotate_right(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_asks_for_the_same() {
        let requests = |seed| all(seed, 500).into_iter().map(|trace| trace.requests).collect::<Vec<_>>();
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1)[0], requests(2)[0]);
    }

    #[test]
    fn all_but_the_last_have_images_of_one_weight() {
        let traces = all(3, 50_000);
        let (sized, equal) = traces.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        for trace in equal {
            assert!(trace.requests.iter().all(|request| trace.weight(*request) == WEIGHT), "{}", trace.name);
        }
        let mean = sized.map(|trace| trace.footprint() / trace.keys.len() as u64);
        assert!(mean.is_some_and(|mean| (16_000..26_000).contains(&mean)), "{mean:?}");
    }
}
