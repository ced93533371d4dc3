//! Rows of statistics as charts, and figures as people read them. Pure: it knows neither templates nor HTTP.

mod chart;
pub mod units;

pub use chart::*;
