package table

import (
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// Successor is the successor of a member's root in a domain.
type Successor struct {
	Row         *statev1.UpstreamAnchor
	Certificate *x509.Certificate
}

// Root returns the successor as the rules need it.
func (s Successor) Root() plan.Root { return rootOf(s.Certificate) }

func rootOf(c *x509.Certificate) plan.Root {
	return plan.Root{ID: string(c.Raw), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// Successors returns the successors of roots in a domain, of every member.
func Successors(r raftstore.Reader, td string) (all []Successor, err error) {
	rows, err := ListUpstreamAnchors(r, td)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.GetSuccessorOf() == "" {
			continue
		}
		cert, err := x509.ParseCertificate(row.GetCertificate())
		if err != nil {
			return nil, fmt.Errorf("the next root of member %s in %s: %w", row.GetSuccessorOf(), td, err)
		}
		all = append(all, Successor{row, cert})
	}
	return all, nil
}

// SuccessorsOf returns the successors of a member's root in a domain: one at most, unless another version wrote them.
func SuccessorsOf(r raftstore.Reader, td, member string) (of []Successor, err error) {
	all, err := Successors(r, td)
	for _, s := range all {
		if s.Row.GetSuccessorOf() == member {
			of = append(of, s)
		}
	}
	return of, err
}

// SuccessionOf returns the input of [plan.Succession.Next] for the member of a situation. rows are the authorities of
// the domain. hasKey reports whether the member has the key of a root.
func SuccessionOf(
	r raftstore.Reader, td string, s plan.Situation, rows []*statev1.Authority, hasKey func(der []byte) bool,
) (plan.Succession, error) {
	succession := plan.Succession{Now: s.Now}
	successors, err := SuccessorsOf(r, td, s.Member)
	if err != nil {
		return plan.Succession{}, err
	}
	if len(successors) > 0 {
		succession.Successor = successors[0].Root()
		succession.HasKey = hasKey(successors[0].Certificate.Raw)
	}
	newest := newestOwn(rows, s.Member, plan.X509)
	if newest == nil || newest.GetUpstreamAnchor() {
		return succession, nil
	}
	present, err := AnchorOf(newest)
	if err != nil {
		return plan.Succession{}, err
	}
	succession.Present = rootOf(present)
	succession.Ends = newest.GetAnchorRevoked() || plan.State(newest.GetState()).Past() ||
		!s.Now.Before(TimeOf(newest.GetNotAfter())) || s.Suspect()[succession.Present.ID] ||
		newest.GetAnchorRotation() < s.Rotations.Anchors
	return succession, nil
}

// PutSuccessor publishes the successor of a member's root.
func PutSuccessor(tx *raftstore.Tx, domain *statev1.Domain, member string, c *x509.Certificate, now time.Time) error {
	return UpstreamAnchors.Put(tx, AnchorKey(domain.GetTrustDomain(), c.Raw), &statev1.UpstreamAnchor{
		TrustDomain: domain.GetTrustDomain(), Certificate: c.Raw, SuccessorOf: member, Published: true,
		PublishTime: timestamppb.New(now),
		ReadyTime:   timestamppb.New(now.Add(SettingsOf(domain).Dissemination(now))),
	})
}

// DropSuccessors removes the successors of a member's root, and returns them. With revoke it records that they are
// revoked.
func DropSuccessors(tx *raftstore.Tx, td, member string, revoke bool, now time.Time) ([]Successor, error) {
	dropped, err := SuccessorsOf(tx, td, member)
	if err != nil {
		return nil, err
	}
	for _, s := range dropped {
		if revoke {
			err = PutRevokedAnchor(tx, td, s.Certificate, now)
		} else {
			err = UpstreamAnchors.Delete(tx, AnchorKey(td, s.Certificate.Raw))
		}
		if err != nil {
			return nil, err
		}
	}
	return dropped, nil
}

// DropAllSuccessors removes the successors of all members in a domain.
func DropAllSuccessors(tx *raftstore.Tx, td string) error {
	all, err := Successors(tx, td)
	for _, s := range all {
		if err == nil {
			err = UpstreamAnchors.Delete(tx, AnchorKey(td, s.Certificate.Raw))
		}
	}
	return err
}
