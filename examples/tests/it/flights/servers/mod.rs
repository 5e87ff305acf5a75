//! The main job on real clusters.

mod chaos;
mod cluster;
mod given;
