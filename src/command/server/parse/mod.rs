//! Parsing of requests: paths, parameters, headers, forms and bulk bodies. Independent of stores
//! and connections, so that fuzz targets can reach all of it.

pub(crate) mod bulk;
pub(crate) mod encoding;
pub(crate) mod form;
pub(crate) mod head;
pub(crate) mod ignored;
mod parameters;
pub(crate) mod rules;
