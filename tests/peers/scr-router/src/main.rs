//! A router of scr-axum-cranker-router: says where it listens as `sluice run` does, and runs until it is killed.

use std::net::SocketAddr;

use scr_axum_cranker_router::CrankerRouterBuilder;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let router = CrankerRouterBuilder::new().build();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (web, tunnels) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
    println!("listening  web  http  {}", web.local_addr()?);
    println!("listening  tunnels  tunnel  {}", tunnels.local_addr()?);
    println!("ready");
    let web = axum::serve(web, router.visit_portal_axum_router());
    let tunnels = axum::serve(tunnels, router.registration_axum_router());
    tokio::try_join!(web.into_future(), tunnels.into_future())?;
    Ok(())
}
