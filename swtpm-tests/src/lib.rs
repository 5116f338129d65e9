//! What Passhold's tests run against: software TPMs, a proxy that makes them fail, and other people's
//! relying parties.

mod desk;
mod device;
mod dice;
mod hid;
mod machine;
mod others;
mod passhold;
mod pinentry;
pub mod proxy;
mod scene;
mod tmux;
mod tpm;

pub use desk::Desk;
pub use device::Device;
pub use dice::Dice;
pub use hid::HidClient;
pub use machine::Machine;
pub use others::installed;
pub use passhold::{Call, Passhold, Program, Run, Running, Terminal};
pub use pinentry::Pinentry;
pub use scene::{PIN, Scene, creation_options, crowd, pin, request_options, rng, scale};
pub use tmux::Tmux;
pub use tpm::{TestTpm, key_store};
