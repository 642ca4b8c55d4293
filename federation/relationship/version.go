package relationship

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Version names one version of a bundle. The zero value is that of none.
type Version struct {
	Sequence uint64
	Ordered  bool
	Digest   [32]byte
}

// None reports whether there is no bundle.
func (v Version) None() bool { return v == Version{} }

// Replaces reports whether a bundle of this version is worth sending to one who has another.
func (v Version) Replaces(had Version) bool {
	switch {
	case had.None():
		return true
	case v.Ordered && had.Ordered:
		return v.Sequence > had.Sequence || v.Sequence == had.Sequence && v.Digest != had.Digest
	}
	return v.Digest != had.Digest
}

func (v Version) Message(td string) *ententev1.PeerBundleVersion {
	m := &ententev1.PeerBundleVersion{TrustDomain: td}
	if v.None() {
		return m
	}
	m.Digest = v.Digest[:]
	if v.Ordered {
		m.Sequence = &v.Sequence
	}
	return m
}
