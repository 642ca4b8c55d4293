package authority

import (
	"context"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/authority/plan"
)

// Acknowledgements returns what peers have acknowledged. The loop that activates authorities and the service that lists
// them call it, and expect a result within seconds.
type Acknowledgements interface {
	// Acknowledged returns all peers that have, or had, a stream and subscribe to the bundle of a hosted domain.
	// complete is false while some of them cannot be known, as after a change of leader.
	Acknowledged(ctx context.Context, td string) (peers []plan.PeerAcknowledgement, complete bool, err error)
}

// peerReader reads what peers have acknowledged.
type peerReader struct {
	acknowledgements Acknowledgements // nil if there are no streams
	log              hclog.Logger
}

// of returns the peers of a domain if a prepared authority depends on them: one of this member that is otherwise
// ready, or any if all is set. It returns nil if none depends on them.
func (p *peerReader) of(ctx context.Context, td string, s plan.Situation, all bool) *plan.Peers {
	if p.acknowledgements == nil {
		return nil
	}
	needed := false
	for _, a := range s.Authorities {
		needed = needed ||
			a.State == plan.Prepared && a.Published > 0 && (all || a.Member == s.Member && s.Due(a))
	}
	if !needed {
		return nil
	}
	acknowledged, complete, err := p.acknowledgements.Acknowledged(ctx, td)
	if err != nil {
		p.log.Debug("cannot read what peers have acknowledged", "trust_domain", td, "error", err)
		return &plan.Peers{}
	}
	return &plan.Peers{Acknowledgements: acknowledged, Complete: complete}
}
