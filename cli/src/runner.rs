use crate::{
    app::App,
    args::{Command, Global},
    config::Config,
    console::Console,
    failure::Result,
    ipc::{self, Call},
};

/// Runs commands where the vault is: in this process, or in the passholdd that keeps it.
#[derive(Debug)]
pub struct Runner {
    global: Global,
    config: Config,
}

impl Runner {
    /// As the command line and the config file say.
    pub fn new(global: Global) -> Result<Self> {
        // passholdd has its own, and what is said here of vault and TPM does not hold there.
        let config = if global.socket.is_some() { Config::default() } else { Config::read()? };
        Ok(Self { global, config })
    }

    /// Returns the exit code.
    pub fn run(&self, command: Command, console: &mut dyn Console) -> Result<u8> {
        let is_doctor = matches!(command, Command::Doctor(_));
        let mut daemon = match &self.global.socket {
            Some(path) => match ipc::connect(path) {
                // To be told with the rest.
                Err(_) if is_doctor => None,
                stream => Some((path.clone(), stream?)),
            },
            None => ipc::find(&self.global, &self.config),
        };
        if let Some((_, stream)) = daemon.take_if(|_| !is_doctor) {
            return Call::new(command, self.global.json, console).relay(stream, console);
        }
        let mut app = App::new(self.global.clone(), self.config.clone(), console)?;
        app.daemon = daemon.map(|(path, _)| path);
        crate::run(&mut app, command).map(|()| 0)
    }
}
