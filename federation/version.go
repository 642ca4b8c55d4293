package federation

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// version names one version of a bundle. The zero value is that of none.
type version struct {
	sequence uint64
	ordered  bool
	digest   [32]byte
}

// none reports whether there is no bundle.
func (v version) none() bool { return v == version{} }

// replaces reports whether a bundle of this version is worth sending to one who has another.
func (v version) replaces(had version) bool {
	switch {
	case had.none():
		return true
	case v.ordered && had.ordered:
		return v.sequence > had.sequence || v.sequence == had.sequence && v.digest != had.digest
	}
	return v.digest != had.digest
}

func (v version) message(td string) *ententev1.PeerBundleVersion {
	m := &ententev1.PeerBundleVersion{TrustDomain: td}
	if v.none() {
		return m
	}
	m.Digest = v.digest[:]
	if v.ordered {
		m.Sequence = &v.sequence
	}
	return m
}
