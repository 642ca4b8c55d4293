package relationship

import (
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// InForce reports whether a relationship is used: it is not suspended and, if it has an agreement, both sides consent.
func InForce(row *statev1.Relationship) bool {
	return !row.GetSuspended() && Consented(row.GetAgreement())
}

// Consented reports whether both sides consent. A relationship without an agreement needs no other consent.
func Consented(a *statev1.RelationshipAgreement) bool {
	return a == nil || a.GetApproveTime() != nil && a.GetPeerApproveTime() != nil && a.GetEndTime() == nil
}

// EverConsented reports whether there is a relationship with a trust domain, and whether both sides have ever consented
// to it. It stays consented after a suspension or an end, for those who read its history.
func EverConsented(r raftstore.Reader, trustDomain string) (foreign, consented bool, err error) {
	row, foreign, err := Relationships.Get(r, trustDomain)
	a := row.Value.GetAgreement()
	return foreign, foreign && (a == nil || a.GetApproveTime() != nil && a.GetPeerApproveTime() != nil), err
}

// StateOf returns the state of a relationship, apart from its bundle.
func StateOf(row *statev1.Relationship) ententev1.RelationshipState {
	a := row.GetAgreement()
	switch {
	case a.GetEndTime() != nil:
		return ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED
	case row.GetSuspended():
		return ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED
	case !Consented(a):
		return ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING
	}
	return ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE
}

// ConsentOf returns this side's consent to an agreement. Without an agreement it has ended.
func ConsentOf(a *statev1.RelationshipAgreement) ententev1.Consent {
	switch {
	case a == nil || a.GetEndTime() != nil:
		return ententev1.Consent_CONSENT_ENDED
	case a.GetApproveTime() != nil:
		return ententev1.Consent_CONSENT_APPROVED
	}
	return ententev1.Consent_CONSENT_OPEN
}

// ReceiveConsent applies the other side's consent and announcement to a relationship, and reports whether it changed.
// An end is final. Until the other side has confirmed that it has stored the agreement, an end from it can mean that it
// is about to, and is ignored.
func ReceiveConsent(row *statev1.Relationship, says ententev1.Consent, told Announcement, now time.Time) bool {
	a := row.GetAgreement()
	if a == nil || a.GetEndTime() != nil {
		return false
	}
	changed := false
	switch says {
	case ententev1.Consent_CONSENT_ENDED:
		if !a.GetConfirmed() {
			return false
		}
		a.EndTime = timestamppb.New(now)
		return true
	case ententev1.Consent_CONSENT_APPROVED:
		if a.GetPeerApproveTime() == nil {
			a.PeerApproveTime, changed = timestamppb.New(now), true
		}
	case ententev1.Consent_CONSENT_OPEN: // an approval that was given is taken back by an end alone
	default:
		return false // of a later version
	}
	if !a.GetConfirmed() {
		a.Confirmed, changed = true, true
	}
	return told.Apply(row) || changed
}

// HasMember reports whether a member of the other side has an identity key.
func HasMember(identities [][]byte, presented [32]byte) bool {
	return slices.ContainsFunc(identities, func(known []byte) bool { return slices.Equal(known, presented[:]) })
}

// UpdateAgreement writes what fn changes in a relationship with an agreement and in its linked home relationship. If fn
// reports no change, nothing is written.
func UpdateAgreement(tx *raftstore.Tx, name, id string, fn func(*statev1.Relationship) bool) (changed bool, err error) {
	row, found, err := Relationships.Get(tx, name)
	if err != nil || !found || row.Value.GetAgreement().GetId() != id {
		return false, err
	}
	rows := []raftstore.Row[*statev1.Relationship]{row}
	if home := row.Value.GetPeer().GetHomeTrustDomain(); home != "" && home != name {
		linked, found, err := Relationships.Get(tx, home)
		if err != nil {
			return false, err
		}
		if found && linked.Value.GetAgreement().GetId() == id {
			rows = append(rows, linked)
		}
	}
	for i, r := range rows {
		was, over := proto.CloneOf(r.Value), r.Value.GetAgreement().GetEndTime() != nil
		if !fn(r.Value) {
			continue
		}
		changed = true
		if i > 0 && !over && r.Value.GetAgreement().GetEndTime() != nil {
			if needed, err := ReassignLinkedHome(tx, name, r.Key, id); err != nil {
				return false, err
			} else if needed {
				continue
			}
		}
		if InForce(r.Value) != InForce(was) || !slices.Equal(URLs(r.Value), URLs(was)) {
			restartFetches(tx, r.Value)
		}
		if !SameSettings(r.Value, was) {
			r.Value.SettingsGeneration = raftstore.NextGeneration(tx, was.GetSettingsGeneration())
		}
		if err := Relationships.Put(tx, r.Key, r.Value); err != nil {
			return false, err
		}
	}
	return changed, nil
}

// ReassignLinkedHome assigns the linked home relationship of an agreement to another relationship with the same
// cluster, with which it ends then. It reports whether another relationship needs it.
func ReassignLinkedHome(tx *raftstore.Tx, name, home, id string) (needed bool, err error) {
	linked, found, err := Relationships.Get(tx, home)
	if err != nil || !found || !linked.Value.GetAgreement().GetLinkedHome() ||
		linked.Value.GetAgreement().GetId() != id {
		return false, err
	}
	for other, err := range Relationships.All(tx, "") {
		if err != nil {
			return false, err
		}
		if other.Key == home || other.Key == name || other.Value.GetPeer().GetHomeTrustDomain() != home ||
			other.Value.GetAgreement().GetEndTime() != nil {
			continue
		}
		needed = true // even by a relationship without an agreement, which leaves the row unchanged
		if a := other.Value.GetAgreement(); a != nil {
			next := proto.Clone(a).(*statev1.RelationshipAgreement)
			next.LinkedHome = true
			linked.Value.Agreement = next
			restartFetches(tx, linked.Value)
			return true, Relationships.Put(tx, home, linked.Value)
		}
	}
	return needed, nil
}

// Approve is the transaction of an operator's consent.
func Approve(sources trust.Sources, tx *raftstore.Tx, name, operator string, now time.Time) error {
	row, err := Get(sources, tx, name)
	if err != nil {
		return err
	}
	a := row.GetAgreement()
	switch {
	case a == nil:
		return status.Errorf(
			codes.FailedPrecondition,
			"the relationship with %s did not come of an invitation, and needs no approval; `entente federation show "+
				"%s`",
			name,
			name,
		)
	case a.GetLinkedHome():
		for main, err := range Relationships.All(tx, "") {
			if err != nil {
				return err
			}
			if m := main.Value.GetAgreement(); m.GetId() == a.GetId() && !m.GetLinkedHome() {
				return status.Errorf(
					codes.FailedPrecondition,
					"%s came along with %s, and is consented to with it: `entente federation approve %s`",
					name,
					main.Key,
					main.Key,
				)
			}
		}
		return status.Errorf(
			codes.FailedPrecondition,
			"%s came along with a relationship that is gone; delete it",
			name,
		)
	case a.GetEndTime() != nil:
		return status.Errorf(
			codes.FailedPrecondition,
			"the other side has ended the agreement with %s; delete the relationship, and begin anew with an "+
				"invitation",
			name,
		)
	}
	_, err = UpdateAgreement(tx, name, a.GetId(), func(row *statev1.Relationship) bool {
		a := row.GetAgreement()
		pending := ApplyPending(row)
		if a.GetApproveTime() != nil {
			return pending
		}
		a.ApproveTime, a.Approver = timestamppb.New(now), operator
		return true
	})
	return err
}

// AgreementMessage returns the agreement of a relationship as the API has it.
func AgreementMessage(row *statev1.Relationship) *ententev1.Agreement {
	a := row.GetAgreement()
	if a == nil {
		return nil
	}
	return &ententev1.Agreement{
		Id: a.GetId(), HostedTrustDomain: a.GetHostedTrustDomain(), Invited: a.GetInvited(),
		ApproveTime: a.GetApproveTime(), Approver: a.GetApprover(),
		PeerApproveTime: a.GetPeerApproveTime(), EndTime: a.GetEndTime(), LinkedHome: a.GetLinkedHome(),
		Hosts: AgreedHosts(row), PendingUrls: a.GetPendingUrls(), PendingAddresses: a.GetPendingAddresses(),
		Advertised: a.GetAdvertised(), WebRootsSha256: hex.EncodeToString(a.GetWebRootsSha256()),
		PendingWebRootsSha256: hex.EncodeToString(endpoint.RootsDigest(a.GetPendingWebRoots())),
	}
}
