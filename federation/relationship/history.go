package relationship

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// ForeignHistory holds the last [bundle.ForeignDepth] versions of the bundle of each foreign domain, and how far its
// statements were checked. Its rows come and go with those of [Relationships].
var ForeignHistory = raftstore.NewTable[*statev1.ForeignHistory]("foreign_history")

// History returns the versions of a foreign domain's bundle, oldest first, and a function that builds the bundle of
// one.
func History(r raftstore.Reader, trustDomain string) (
	[]*statev1.BundleVersion, func(*statev1.BundleVersion) (*bundle.Bundle, error), error,
) {
	h, err := HistoryOf(r, trustDomain)
	if err != nil {
		return nil, nil, err
	}
	versions, content := versionsOf(h)
	return versions, content, nil
}

// AttestedHistory returns the same of a domain that a hub attests to: the versions that the hub served.
func AttestedHistory(row *statev1.HubBundle) (
	[]*statev1.BundleVersion, func(*statev1.BundleVersion) (*bundle.Bundle, error),
) {
	return versionsOf(row.GetHistory())
}

func versionsOf(h *statev1.ForeignHistory) (
	[]*statev1.BundleVersion, func(*statev1.BundleVersion) (*bundle.Bundle, error),
) {
	return h.GetVersions(), func(v *statev1.BundleVersion) (*bundle.Bundle, error) { return VersionOf(h, v) }
}

// HistoryOf reads the history of a domain; one that has none yet has an empty one.
func HistoryOf(r raftstore.Reader, name string) (*statev1.ForeignHistory, error) {
	row, found, err := ForeignHistory.Get(r, name)
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", name, err)
	}
	if !found {
		return &statev1.ForeignHistory{TrustDomain: name}, nil
	}
	return row.Value, nil
}

// VersionOf returns the bundle of one version of a history.
func VersionOf(h *statev1.ForeignHistory, v *statev1.BundleVersion) (*bundle.Bundle, error) {
	return statement.FromVersion(v, func(id []byte) (*statev1.BundleKey, error) {
		for _, key := range h.GetKeys() {
			if bytes.Equal(key.GetId(), id) {
				return key, nil
			}
		}
		return nil, fmt.Errorf("authority %x is not in the history", id)
	})
}

// NewestVersion is the last version of a history; nil: there is none.
func NewestVersion(h *statev1.ForeignHistory) *statev1.BundleVersion {
	if n := len(h.GetVersions()); n > 0 {
		return h.GetVersions()[n-1]
	}
	return nil
}

// RecordVersion adds a bundle that is being stored to the history of its domain. If reset is true, an operator provided
// it whatever its sequence, and earlier statements do not count any more.
func RecordVersion(tx *raftstore.Tx, b *bundle.Bundle, source string, reset bool, now time.Time) error {
	name := b.TrustDomain().Name()
	h, err := HistoryOf(tx, name)
	if err != nil {
		return err
	}
	was := proto.Clone(h)
	if err := AddVersion(h, b, source, reset, now); err != nil || proto.Equal(was, h) {
		return err
	}
	return ForeignHistory.Put(tx, name, h)
}

// AddVersion adds a bundle to a history, unless it is what was recorded last.
func AddVersion(h *statev1.ForeignHistory, b *bundle.Bundle, source string, reset bool, now time.Time) error {
	if was := NewestVersion(h); was != nil && !reset && sameVersion(was, b) {
		return nil
	}
	r, err := statement.Record(b, h.GetVersions(), Clip(source), now, statement.ForeignDepth)
	if err != nil {
		return err
	}
	h.Versions = statement.Recount(h.GetVersions(), r)
	h.Keys = slices.DeleteFunc(append(h.GetKeys(), r.Keep...), func(k *statev1.BundleKey) bool {
		return slices.ContainsFunc(r.Forget, func(id []byte) bool { return bytes.Equal(id, k.GetId()) })
	})
	if reset {
		NewestVersion(h).ResetsSequence, h.Statement = true, ""
	}
	return nil
}

// sameVersion reports whether a bundle is the version that was recorded last.
func sameVersion(v *statev1.BundleVersion, b *bundle.Bundle) bool {
	digest := b.Digest()
	sequence, ordered := b.Sequence()
	hint, hinted := b.RefreshHint()
	return bytes.Equal(v.GetDigest(), digest[:]) && (v.Sequence != nil) == ordered && v.GetSequence() == sequence &&
		(v.RefreshHint != nil) == hinted && v.GetRefreshHint() == int64(hint/time.Second)
}

// Shown returns the view that was recorded under a sequence since the last reset.
func Shown(h *statev1.ForeignHistory, sequence uint64) (statement.View, bool) {
	for _, v := range slices.Backward(h.GetVersions()) {
		if v.Sequence != nil && v.GetSequence() == sequence && len(v.GetDigest()) == 32 {
			view := statement.View{
				Source:   v.GetSource(),
				Sequence: sequence,
				Ordered:  true,
				Keys:     [32]byte(v.GetDigest()),
			}
			if d := v.GetStatementDigest(); len(d) == 32 {
				view.Statement = [32]byte(d)
			}
			return view, true
		}
		if v.GetResetsSequence() {
			break
		}
	}
	return statement.View{}, false
}
