package bundle_test

import (
	"testing"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func BenchmarkParse(b *testing.B) {
	document := bundletest.NewBundle(b, bundletest.Home, 1, bundletest.NewAuthority(b, bundletest.Home),
		bundletest.NewAuthority(b, bundletest.Home), bundletest.NewAuthority(b, bundletest.Home)).
		Marshal()
	b.SetBytes(int64(len(document)))
	for b.Loop() {
		if _, _, err := bundle.Parse(bundletest.Home, document); err != nil {
			b.Fatal(err)
		}
	}
}
