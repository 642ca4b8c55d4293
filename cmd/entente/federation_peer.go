package main

import (
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// streamOf says in a word or two whether a stream is open to the peer of a relationship.
func streamOf(r *ententev1.Relationship) string {
	if r.GetPeer() == nil {
		return ""
	}
	for _, s := range r.GetStreams() {
		if s.GetConnected() {
			return name(s.GetDirection()) + " at " + s.GetMember()
		}
	}
	return "down"
}

// peerFields show the peer of a relationship and the streams with it.
func peerFields(t *table, r *ententev1.Relationship) {
	if r.GetPeer() == nil {
		return
	}
	t.field("peer", r.GetPeer().GetHomeTrustDomain())
	t.field("peer addresses", strings.Join(r.GetPeer().GetAddresses(), ", "))
	if len(r.GetStreams()) == 0 {
		t.field("stream", "none yet")
	}
	for _, s := range r.GetStreams() {
		t.field("stream at "+s.GetMember(), streamLine(s))
		if s.GetLastResult() != "" {
			t.field("  last result", s.GetLastResult())
			t.field("  last error", s.GetLastError())
		}
		if len(s.GetConfirmed()) > 0 {
			t.field("  keeps up to date", strings.Join(s.GetConfirmed(), ", "))
		}
		for _, a := range s.GetAcknowledgements() {
			t.field("  "+a.GetTrustDomain()+" there", acknowledgementLine(a))
		}
	}
}

func streamLine(s *ententev1.PeerStream) string {
	if !s.GetConnected() {
		return "down since " + exact(s.GetSince())
	}
	return fmt.Sprintf("%s, with %s since %s", name(s.GetDirection()), s.GetRemoteMember(), exact(s.GetSince()))
}

func acknowledgementLine(a *ententev1.PeerStreamAcknowledgement) string {
	line := fmt.Sprintf("acknowledged sequence %d", a.GetSequence())
	if a.GetSequence() == 0 {
		line = "nothing acknowledged yet"
	}
	if a.GetRefusal() != "" {
		return line + ", and refused the next: " + a.GetRefusal()
	}
	if a.GetPending() {
		line += ", and not the next yet"
	}
	return line
}
