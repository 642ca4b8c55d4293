package federationtest

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func Hello(home, member string) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Hello{
			Hello: &ententev1.PeerHello{Version: 1, HomeTrustDomain: home, Member: member},
		},
	}
}

func Subscription(wanted ...*ententev1.PeerBundleVersion) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Subscription{Subscription: &ententev1.PeerSubscription{Wanted: wanted}},
	}
}

func Acknowledgement(v *ententev1.PeerBundleVersion, refusal string) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Acknowledgement{
			Acknowledgement: &ententev1.PeerAcknowledgement{Version: v, Refusal: refusal},
		},
	}
}

func Heartbeat(current ...*ententev1.PeerBundleVersion) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Heartbeat{Heartbeat: &ententev1.PeerHeartbeat{Current: current}},
	}
}
