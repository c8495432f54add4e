//! Compiles the schemas with `protox`, so that building needs no `protoc` for our own messages.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["schema/logic.proto", "schema/gateway.proto", "schema/fanout.proto", "schema/revocation.proto"];
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(files, ["schema"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    let mut api = protox::Compiler::new(["schema"])?;
    api.include_imports(true).include_source_info(true).open_file("schema/api.proto")?;
    // For reflection: whoever calls the API may ask for its schema.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("api.bin"), api.encode_file_descriptor_set())?;
    tonic_prost_build::configure().bytes(".").compile_fds(api.file_descriptor_set())?;
    Ok(())
}
