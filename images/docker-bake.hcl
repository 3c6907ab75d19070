# Kinds of images, and what all images have in common. Hosts, tags, platforms and labels come from the table of
# architectures: `cargo xtask images` adds targets that inherit from these; `cargo xtask images --dry-run --json` shows
# them.

variable "SOURCE_DATE_EPOCH" {
  default = "0"
}

target "common" {
  context    = "."
  dockerfile = "Dockerfile"
  args       = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
}

# The emulators, for other images to copy.
target "pkg" {
  inherits = ["common"]
  target   = "pkg"
}

# The program without emulators, which come from QEMU_BIN_DIR.
target "register" {
  inherits = ["common"]
  target   = "register"
}

# Both.
target "full" {
  inherits = ["common"]
  target   = "full"
}

# The program and one emulator: like `full`, with a smaller context.
target "guest" {
  inherits = ["full"]
}
