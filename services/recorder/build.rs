//! Makes cargo notice a new file in `migrations/`, which the macro that embeds them can't.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
