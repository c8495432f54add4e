//! Compiles the schemas with `protox`, so that building needs no `protoc` for our own messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["schema/logic.proto", "schema/gateway.proto", "schema/fanout.proto", "schema/revocation.proto"];
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(files, ["schema"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
