//! The seven photographs of `samples/`.

/// A photograph as it lies in `samples/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The file's name, which also does as a key.
    pub name: &'static str,
    /// Its content type.
    pub content_type: &'static str,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The bytes of the file.
    pub bytes: &'static [u8],
}

/// Declares the samples once, one function each, and [`all`] of them.
macro_rules! samples {
    ($($(#[$doc:meta])* $function:ident: $name:literal, $content_type:literal, $width:literal x $height:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $function() -> Sample {
                Sample {
                    name: $name,
                    content_type: $content_type,
                    width: $width,
                    height: $height,
                    bytes: include_bytes!(concat!("../../../samples/", $name)),
                }
            }
        )*

        /// All of them, by name.
        pub fn all() -> Vec<Sample> {
            vec![$($function()),*]
        }
    };
}

samples! {
    /// Eileen Collins.
    astronaut: "astronaut.png", "image/png", 512 x 512;
    /// A cat.
    chelsea: "chelsea.png", "image/png", 451 x 300;
    /// An espresso cup.
    coffee: "coffee.png", "image/png", 600 x 400;
    /// Grass, in grey.
    grass: "grass.png", "image/png", 512 x 512;
    /// The Hubble eXtreme Deep Field.
    hubble_deep_field: "hubble_deep_field.jpg", "image/jpeg", 1000 x 872;
    /// A human retina.
    retina: "retina.jpg", "image/jpeg", 1411 x 1411;
    /// A Falcon 9 launch.
    rocket: "rocket.jpg", "image/jpeg", 640 x 427;
}
