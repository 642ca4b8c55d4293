package bundle

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Row returns the stored form of the bundle, whose content last changed at the given time. The caller sets the other
// fields of its table.
func (b *Bundle) Row(changed time.Time) *statev1.Bundle {
	return &statev1.Bundle{
		TrustDomain: b.td.Name(),
		Document:    b.Marshal(),
		ChangeTime:  timestamppb.New(changed),
		IgnoredKeys: uint32(b.leftOut), //nolint:gosec // G115: at most MaxKeys
	}
}
