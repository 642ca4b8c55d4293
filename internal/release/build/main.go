// Command build builds a command as it is released, for programs in modules of their own:
//
//	go run ./internal/release/build PACKAGE VARIABLE VERSION OS ARCH FILE
//
// It prints the version, without a leading v.
package main

import (
	"fmt"
	"os"

	"github.com/ententehq/entente/internal/release"
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/release/build PACKAGE VARIABLE VERSION OS ARCH FILE")
		os.Exit(2)
	}
	a := os.Args[1:]
	version, err := release.ParseVersion(a[2])
	if err == nil {
		err = release.Binary{Package: a[0], Variable: a[1], Version: version, OS: a[3], Arch: a[4]}.Build(a[5])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(version)
}
