//! What clients send: paths, parameters, headers, forms and bulk bodies. Nothing here knows of a
//! store or a connection, so that fuzz targets reach all of it.

pub(crate) mod bulk;
pub(crate) mod encoding;
pub(crate) mod form;
pub(crate) mod rules;
