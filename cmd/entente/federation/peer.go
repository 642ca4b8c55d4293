package federation

import (
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// streamOf returns the state of the stream to the peer of a relationship, for a list.
func streamOf(r *ententev1.Relationship) string {
	if r.GetPeer() == nil {
		return ""
	}
	for _, s := range r.GetStreams() {
		if s.GetConnected() {
			return cli.EnumName(s.GetDirection()) + " at " + s.GetMember()
		}
	}
	return "down"
}

// peerFields adds the peer and the streams with it.
func peerFields(t *cli.Table, r *ententev1.Relationship) {
	if r.GetPeer() == nil {
		return
	}
	t.Field("peer", r.GetPeer().GetHomeTrustDomain())
	t.Field("peer addresses", strings.Join(r.GetPeer().GetAddresses(), ", "))
	if len(r.GetStreams()) == 0 {
		t.Field("stream", "none yet")
	}
	for _, s := range r.GetStreams() {
		t.Field("stream at "+s.GetMember(), streamLine(s))
		if s.GetLastResult() != "" {
			t.Field("  last result", s.GetLastResult())
			t.Field("  last error", s.GetLastError())
		}
		if len(s.GetConfirmed()) > 0 {
			t.Field("  updates", strings.Join(s.GetConfirmed(), ", "))
		}
		for _, a := range s.GetAcknowledgements() {
			t.Field("  "+a.GetTrustDomain()+" there", acknowledgementLine(a))
		}
	}
}

func streamLine(s *ententev1.PeerStream) string {
	if !s.GetConnected() {
		return "down since " + cli.Time(s.GetSince())
	}
	return fmt.Sprintf(
		"%s, with %s since %s", cli.EnumName(s.GetDirection()), s.GetRemoteMember(), cli.Time(s.GetSince()),
	)
}

func acknowledgementLine(a *ententev1.PeerStreamAcknowledgement) string {
	line := fmt.Sprintf("acknowledged sequence %d", a.GetSequence())
	if a.GetSequence() == 0 {
		line = "nothing acknowledged yet"
	}
	if a.GetRefusal() != "" {
		return line + ", and rejected the next: " + a.GetRefusal()
	}
	if a.GetPending() {
		line += ", and not yet the next"
	}
	return line
}
