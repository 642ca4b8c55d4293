package federationtest

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Hello returns the first message of a stream.
func Hello(home, member string) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Hello{
			Hello: &ententev1.PeerHello{Version: 1, HomeTrustDomain: home, Member: member},
		},
	}
}

// Subscription returns a message that requests bundles.
func Subscription(wanted ...*ententev1.PeerBundleVersion) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Subscription{Subscription: &ententev1.PeerSubscription{Wanted: wanted}},
	}
}

// Acknowledgement returns the answer to a bundle: an empty refusal means that it is stored.
func Acknowledgement(v *ententev1.PeerBundleVersion, refusal string) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Acknowledgement{
			Acknowledgement: &ententev1.PeerAcknowledgement{Version: v, Refusal: refusal},
		},
	}
}

// Heartbeat returns a heartbeat that confirms versions.
func Heartbeat(current ...*ententev1.PeerBundleVersion) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Heartbeat{Heartbeat: &ententev1.PeerHeartbeat{Current: current}},
	}
}
