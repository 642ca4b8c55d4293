package node

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// publisher keeps what this member's bundle endpoint serves equal to the hosted bundles of its replicated state.
type publisher struct {
	store     *raftstore.Store
	home      spiffeid.TrustDomain
	handler   *endpoint.Handler
	log       hclog.Logger
	published atomic.Bool
	// certified, where the endpoint has its certificates from an ACME server, learns of the endpoint hosts.
	certified atomic.Pointer[webcert.ACME]
	hosts     atomic.Pointer[[]string] // as they were last published
	// statements are those of hosted domains as they were last read; run alone touches them.
	statements map[string]statementsRead
	// vouched are the foreign bundles that the cluster vouches for; run alone touches them.
	vouched vouchedBundles
	// leftOut is how many of them did not fit into the map.
	leftOut int
}

// statementsRead are a domain's statements at one revision of its history.
type statementsRead struct {
	revision   raftstore.Revision
	statements *statement.List
}

// run follows the tables until ctx ends. Each change is rendered once; without quorum the last state stays served.
func (p *publisher) run(ctx context.Context) error {
	over := []raftstore.Prefix{table.Domains.Prefix(""), table.HostedBundles.Prefix(""), table.HostedHistory.Prefix(""),
		relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix("")}
	return feed.Latest(ctx, p.store, over, func(v *raftstore.View) error {
		if err := p.publish(v); err != nil {
			// The endpoint goes on with what it served before: an old bundle is better than none.
			p.log.Error("cannot publish the hosted bundles; the endpoint serves what it served before", "revision", v.Revision(), "error", err)
		}
		return nil
	})
}

func (p *publisher) publish(v *raftstore.View) error {
	publication := endpoint.Publication{Home: p.home}
	homeKnown := false
	statements := map[string]statementsRead{}
	for row, err := range table.HostedBundles.All(v, "") {
		if err != nil {
			return err
		}
		parsed, err := parseRow(row, true)
		if err != nil {
			return err
		}
		domain, _, err := table.Domains.Get(v, row.Key)
		if err != nil {
			return fmt.Errorf("hosted domain %s: %w", row.Key, err)
		}
		hosted := endpoint.Hosted{Bundle: parsed.bundle, Host: domain.Value.GetEndpointHost()}
		if issuer := domain.Value.GetOidcIssuer(); issuer != "" {
			if hosted.Issuer, err = endpoint.ParseIssuer(issuer); err != nil {
				return fmt.Errorf("hosted domain %s: %w", row.Key, err)
			}
		}
		if statements[row.Key], err = p.readStatements(v, parsed.bundle.TrustDomain()); err != nil {
			return err
		}
		hosted.Statements = statements[row.Key].statements
		publication.Hosted = append(publication.Hosted, hosted)
		homeKnown = homeKnown || parsed.bundle.TrustDomain() == p.home
	}
	p.statements = statements
	if !homeKnown {
		return nil // the cluster is being formed, or this member has not caught up with it
	}
	var err error
	if publication.Attested, err = p.vouched.read(v); err != nil {
		return err
	}
	if err := p.handler.Publish(publication); err != nil {
		return err
	}
	if n := p.handler.MapLeftOut(); n != p.leftOut {
		p.leftOut = n
		level := p.log.Error
		if n == 0 {
			level = p.log.Info
		}
		level("domains that the cluster vouches for, the last by name, do not fit into the bundle map", "left_out", n,
			"most_domains", bundle.MaxMapDomains, "most_bytes", bundle.MaxMapBytes)
	}
	p.published.Store(true)
	var hosts []string
	for _, hosted := range publication.Hosted {
		if hosted.Host != "" {
			hosts = append(hosts, hosted.Host)
		}
	}
	p.hosts.Store(&hosts)
	p.tellHosts()
	return nil
}

// follow lets source get certificates for the endpoint hosts of hosted domains, those of now and of later.
func (p *publisher) follow(source *webcert.ACME) {
	p.certified.Store(source)
	p.tellHosts()
}

func (p *publisher) tellHosts() {
	if source, hosts := p.certified.Load(), p.hosts.Load(); source != nil && hosts != nil {
		source.SetHosts(*hosts)
	}
}

// readStatements reads a domain's statements, or takes those that were read before where its history has not changed since.
func (p *publisher) readStatements(v *raftstore.View, td spiffeid.TrustDomain) (statementsRead, error) {
	at := table.HostedHistory.PrefixRevision(v, td.Name()+"/")
	if read, ok := p.statements[td.Name()]; ok && read.revision == at {
		return read, nil
	}
	compact, err := publish.Statements(v, td.Name())
	return statementsRead{at, statement.NewList(td, compact)}, err
}

// ready says whether the endpoint has anything to serve.
func (p *publisher) ready() error {
	if !p.published.Load() {
		return fmt.Errorf("no bundle of %s has been published yet", p.home.Name())
	}
	return nil
}
