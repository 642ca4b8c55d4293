package devbuild

// SPIFFEHelper is SPIFFE's own program that writes the identities of a Workload API to files.
var SPIFFEHelper = Program{Module: "helperdev", Package: "github.com/spiffe/spiffe-helper/cmd/spiffe-helper"}
