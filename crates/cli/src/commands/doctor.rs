use crate::args::Global;
use crate::doctor::Doctor;
use crate::failure::{FOUND, Failure, OK};
use crate::output::Out;
use crate::server::Server;

pub(crate) async fn run(global: &Global, user: Option<&str>, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix()?;
    if user.is_some() && prefix.is_none() {
        return Err(Failure::usage("--user needs --prefix: permissions are tried under it"));
    }
    let server = Server::connect(global).await?;
    let mut doctor = Doctor::new(&server.client);
    if let Some(prefix) = prefix {
        doctor = doctor.prefix(prefix);
    }
    if let Some(user) = user {
        doctor = doctor.user(user);
    }
    let report = server.answer_within(server.limit * 6, doctor.run()).await?;
    out.show(&report)?;
    Ok(if report.is_healthy() { OK } else { FOUND })
}
