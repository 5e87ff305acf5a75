//! The main job on real clusters.

mod cluster;
