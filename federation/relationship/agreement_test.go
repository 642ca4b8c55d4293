package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

var (
	someTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	some     = timestamppb.New(someTime)
)

// Only a relationship to which both sides consent is acted on.
func TestConsent(t *testing.T) {
	for name, c := range map[string]struct {
		row   *statev1.Relationship
		state ententev1.RelationshipState
		tells ententev1.Consent
	}{
		"nobody's consent": {
			&statev1.Relationship{Agreement: &statev1.RelationshipAgreement{}},
			ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING, ententev1.Consent_CONSENT_OPEN,
		},
		"only the peer's": {
			&statev1.Relationship{Agreement: &statev1.RelationshipAgreement{PeerApproveTime: some}},
			ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING, ententev1.Consent_CONSENT_OPEN,
		},
		"only its own": {
			&statev1.Relationship{Agreement: &statev1.RelationshipAgreement{ApproveTime: some}},
			ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING, ententev1.Consent_CONSENT_APPROVED,
		},
		"both": {
			&statev1.Relationship{Agreement: &statev1.RelationshipAgreement{ApproveTime: some, PeerApproveTime: some}},
			ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE, ententev1.Consent_CONSENT_APPROVED,
		},
		"both, and ended": {
			&statev1.Relationship{
				Agreement: &statev1.RelationshipAgreement{ApproveTime: some, PeerApproveTime: some, EndTime: some},
			},
			ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED, ententev1.Consent_CONSENT_ENDED,
		},
		"both, suspended": {
			&statev1.Relationship{
				Suspended: true, Agreement: &statev1.RelationshipAgreement{ApproveTime: some, PeerApproveTime: some},
			},
			ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED, ententev1.Consent_CONSENT_APPROVED,
		},
		"made by hand": {
			&statev1.Relationship{}, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE,
			ententev1.Consent_CONSENT_ENDED,
		},
		"by hand, suspended": {
			&statev1.Relationship{Suspended: true}, ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED,
			ententev1.Consent_CONSENT_ENDED,
		},
	} {
		active := c.state == ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE
		require.Equal(t, c.state, StateOf(c.row), name)
		require.Equal(t, active, InForce(c.row), name)
		require.Equal(t, active, !TrustOf(c.row).State.Withheld(), name)
		require.Equal(t, c.tells, ConsentOf(c.row.GetAgreement()), name)
	}
}

func TestReceiveConsent(t *testing.T) {
	open := ententev1.Consent_CONSENT_OPEN
	for name, c := range map[string]struct {
		a          *statev1.RelationshipAgreement
		says       ententev1.Consent
		changes    bool
		isEnded    bool
		isApproved bool
	}{
		"approves": {
			&statev1.RelationshipAgreement{}, ententev1.Consent_CONSENT_APPROVED, true, false, true,
		},
		"approves again": {
			&statev1.RelationshipAgreement{Confirmed: true, PeerApproveTime: some},
			ententev1.Consent_CONSENT_APPROVED, false, false, true,
		},
		"is there": {&statev1.RelationshipAgreement{}, open, true, false, false},
		"does not take it back by that": {
			&statev1.RelationshipAgreement{Confirmed: true, PeerApproveTime: some}, open, false, false, true,
		},
		"ends": {
			&statev1.RelationshipAgreement{Confirmed: true, PeerApproveTime: some}, ententev1.Consent_CONSENT_ENDED,
			true, true, true,
		},
		"has not stored it yet": {
			&statev1.RelationshipAgreement{}, ententev1.Consent_CONSENT_ENDED, false, false, false,
		},
		"comes back from the dead": {
			&statev1.RelationshipAgreement{Confirmed: true, EndTime: some}, ententev1.Consent_CONSENT_APPROVED, false,
			true, false,
		},
		"speaks of what nobody knows": {&statev1.RelationshipAgreement{Confirmed: true}, 77, false, false, false},
	} {
		require.Equal(
			t,
			c.changes,
			ReceiveConsent(&statev1.Relationship{Agreement: c.a}, c.says, Announcement{}, someTime),
			name,
		)
		require.Equal(t, c.isEnded, c.a.GetEndTime() != nil, name)
		require.Equal(t, c.isApproved, c.a.GetPeerApproveTime() != nil, name)
	}
	require.False(t, ReceiveConsent(&statev1.Relationship{}, open, Announcement{Identities: [][]byte{{2}}}, someTime))
}
