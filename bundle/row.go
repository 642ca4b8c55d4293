package bundle

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Row is the stored form of the bundle, whose content last changed at the given time. The caller sets what else its
// table keeps.
func (b *Bundle) Row(changed time.Time) *statev1.Bundle {
	return &statev1.Bundle{
		TrustDomain: b.td.Name(),
		Document:    b.Marshal(),
		ChangeTime:  timestamppb.New(changed),
	}
}

// FromRow reads a stored bundle. It fails only if the row was damaged or written by something else.
func FromRow(row *statev1.Bundle) (*Bundle, error) {
	if row == nil {
		return nil, errors.New("there is no stored bundle")
	}
	td, err := ParseTrustDomain(row.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("stored bundle: %w", err)
	}
	b, _, err := Parse(td, row.GetDocument())
	if err != nil {
		return nil, fmt.Errorf("stored bundle: %w", err)
	}
	return b, nil
}
