package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/dnsname"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/routing/exchange"
	"github.com/ententehq/entente/routing/registry/preserve"
)

// blockSchema lists the settings of one kind of block. Other names are errors, which suggest the nearest known one.
type blockSchema struct {
	required, optional []string
}

func (s blockSchema) hcl() *hcl.BodySchema {
	out := &hcl.BodySchema{}
	for _, n := range s.required {
		out.Attributes = append(out.Attributes, hcl.AttributeSchema{Name: n, Required: true})
	}
	for _, n := range s.optional {
		out.Attributes = append(out.Attributes, hcl.AttributeSchema{Name: n})
	}
	return out
}

var blocks = map[string]blockSchema{
	"cluster": {required: []string{"name", "trust_domain", "region"}, optional: []string{"dns_name"}},
	"member":  {required: []string{"id", "zone"}, optional: []string{"data_dir", "listen", "advertise"}},
	"join":    {required: []string{"addresses", "token"}},
	"authority": {optional: []string{
		"ca_ttl", "x509_svid_ttl", "jwt_svid_ttl", "jwt_key_ttl", "signing_grace", "issue_rate", "issue_burst",
		"lint_sample",
	}},
	"federation": {optional: []string{"min_refresh", "peer_min_refresh", "approval", "bundle_dir", "egress_proxy",
		"egress_proxy_credentials"}},
	"routing": {optional: []string{
		"overprovisioning_factor", "panic_threshold", "stale", "import_ttl", "self_preservation",
	}},
	"raft":      {optional: []string{"heartbeat_timeout", "election_timeout", "disk_timeout"}},
	"snapshots": {required: []string{"dir"}, optional: []string{"every", "keep", "recipients"}},
}

// maxRootTTL is the longest life of what is in the bundle: of a root, and of the key of a JWT authority.
const maxRootTTL = 50 * 365 * 24 * time.Hour

var selfSignedSchema = blockSchema{optional: []string{"root_ttl"}}

// nameForm matches the names of clusters, members, regions and zones. They are parts of SPIFFE IDs, file names and
// metric labels.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// decoder decodes one file. It finds blocks by type; each may occur once.
type decoder struct {
	file  *hcl.File
	found map[string]*hcl.Block
	// transitKeys is the block `keys "vault_transit"`. It depends on the upstream and is decoded after it.
	transitKeys *hcl.Block
	// encryptions are the blocks `encryption` of `keys "disk"`. They too are decoded after the upstream.
	encryptions hcl.Blocks
	diags       hcl.Diagnostics
	// effective receives every setting that is read, with its default if the file does not have it. keysOut is the
	// block `keys` in it.
	effective *hclwrite.File
	keysOut   *hclwrite.Body
	literals  []string
}

func decodeConfig(file *hcl.File) (*Config, error) {
	content, diags := file.Body.Content(topSchema())
	d := &decoder{file: file, found: map[string]*hcl.Block{}, diags: diags, effective: hclwrite.NewEmptyFile()}
	for _, b := range content.Blocks {
		if first, ok := d.found[b.Type]; ok {
			d.refuse(b.DefRange, "the block %q occurs twice; the first is on line %d", b.Type,
				first.DefRange.Start.Line)
			continue
		}
		d.found[b.Type] = b
	}
	cfg := &Config{}
	d.cluster(cfg)
	d.member(cfg)
	d.join(cfg)
	d.authority(cfg)
	d.federation(cfg)
	d.bundleEndpoint(cfg)
	d.upstream(cfg)
	if d.transitKeys != nil {
		cfg.Transit = d.transitBlock(cfg, d.transitKeys, "authority.keys \"vault_transit\"", d.keysOut)
		if cfg.Transit != nil {
			cfg.Transit.Dir = filepath.Join(cfg.Member.DataDir, transitFolder)
		}
	}
	d.keyEncryption(cfg)
	d.routing(cfg)
	d.raft(cfg)
	d.telemetry(cfg)
	cfg.Snapshots = snapshots(d, cfg)
	decodeAgents(d, cfg)
	d.relations(cfg)
	if d.diags.HasErrors() {
		return nil, sentences(misplaced(file.Bytes, d.diags))
	}
	cfg.effective, cfg.literals = hclwrite.Format(d.effective.Bytes()), d.literals
	return cfg, nil
}

func (d *decoder) refuse(at hcl.Range, format string, args ...any) {
	d.diags = append(d.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Invalid block", Detail: fmt.Sprintf(format, args...), Subject: &at,
	})
}

// block opens the block of a type. An absent block is empty, and an error if it is required.
func (d *decoder) block(name string, required bool) *block {
	if _, ok := d.found[name]; !ok && required {
		d.refuse(d.file.Body.MissingItemRange(), "the block %q is missing; it needs %s", name,
			strings.Join(blocks[name].required, ", "))
	}
	b, _ := d.top(name, blocks[name].hcl())
	return b
}

// top opens a block of the file with the blocks in it. An absent block is empty.
func (d *decoder) top(kind string, schema *hcl.BodySchema, labels ...string) (*block, hcl.Blocks) {
	if len(d.effective.Body().Blocks()) > 0 {
		d.effective.Body().AppendNewline()
	}
	out := d.effective.Body().AppendNewBlock(kind, labels).Body()
	name := kind
	for _, l := range labels {
		name += fmt.Sprintf(" %q", l)
	}
	if hb, ok := d.found[kind]; ok {
		return d.open(name, out, hb.Body, schema)
	}
	return &block{name: name, diags: &hcl.Diagnostics{}, out: out}, nil
}

// open reads the content of a block: its settings, and the blocks in it.
func (d *decoder) open(
	name string, out *hclwrite.Body, body hcl.Body, schema *hcl.BodySchema,
) (*block, hcl.Blocks) {
	content, diags := body.Content(schema)
	d.diags = append(d.diags, named(name, diags)...)
	return &block{
		name: name, attrs: content.Attributes, missing: content.MissingItemRange, src: d.file.Bytes, diags: &d.diags,
		out: out, literals: &d.literals,
	}, content.Blocks
}

// within adds a block to the effective configuration.
func within(out *hclwrite.Body, kind string, labels ...string) *hclwrite.Body {
	return out.AppendNewBlock(kind, labels).Body()
}

func (d *decoder) cluster(cfg *Config) {
	b := d.block("cluster", true)
	cfg.Cluster.Name = b.identifier("name")
	cfg.Cluster.Region = b.identifier("region")
	if name := b.text("trust_domain", ""); name != "" {
		td, err := bundle.ParseHostedTrustDomain(name)
		if err != nil {
			b.refuse("trust_domain", "%v", err)
		}
		cfg.Cluster.TrustDomain = td
	}
	if name := b.text("dns_name", ""); name != "" {
		if err := dnsname.Check(name); err != nil {
			b.refuse("dns_name", "%v", err)
		}
		cfg.Cluster.DNSName = name
	}
}

func (d *decoder) member(cfg *Config) {
	b := d.block("member", true)
	m := &cfg.Member
	m.ID = b.identifier("id")
	m.Zone = b.identifier("zone")
	dir, err := filepath.Abs(b.text("data_dir", defaultDataDir))
	if err != nil {
		b.refuse("data_dir", "%v", err)
	}
	m.DataDir = dir
	b.record("data_dir", cty.StringVal(dir))
	m.Listen = b.hostPort("listen", defaultListen)
	if _, given := b.attrs["advertise"]; given {
		m.Advertise = b.hostPort("advertise", "")
		if unspecified(m.Advertise) {
			b.refuse("advertise", "%q is not an address that others can reach; name this machine", m.Advertise)
		}
		return
	}
	m.Advertise = m.Listen
	b.record("advertise", cty.StringVal(m.Advertise))
	if unspecified(m.Listen) {
		b.refuse("listen", "with %q, advertise must name the address at which others reach this member", m.Listen)
	}
}

func (d *decoder) join(cfg *Config) {
	if _, ok := d.found["join"]; !ok {
		return
	}
	b := d.block("join", false)
	cfg.Join = &Join{Addresses: b.texts("addresses"), Token: b.secret("token")}
	for _, a := range cfg.Join.Addresses {
		if err := checkHostPort(a); err != nil {
			b.refuse("addresses", "%v", err)
		}
	}
}

// keys decodes the blocks in authority, which are of the type keys, of which there is at most one.
func (d *decoder) keys(out *hclwrite.Body, blocks hcl.Blocks) Keys {
	keys := KeysDisk
	if len(blocks) > 0 {
		keys = Keys(blocks[0].Labels[0])
	}
	d.keysOut = within(out, "keys", string(keys))
	for i, hb := range blocks {
		keys = Keys(hb.Labels[0])
		switch {
		case i > 0:
			d.refuse(hb.DefRange, "authority has two keys blocks; a member keeps its keys in one place")
		case keys == KeysTransit:
			d.transitKeys = hb
		case keys == KeysDisk:
			_, d.encryptions = d.open("authority.keys \"disk\"", d.keysOut, hb.Body, keysSchema)
		case keys != KeysMemory:
			d.refuse(hb.LabelRanges[0], "%q is not a place for keys; write %q, %q or %q",
				keys, KeysDisk, KeysMemory, KeysTransit)
		default:
			d.open(fmt.Sprintf("authority.keys %q", keys), d.keysOut, hb.Body, blockSchema{}.hcl())
		}
	}
	return keys
}

func (d *decoder) authority(cfg *Config) {
	b, nested := d.top("authority", authoritySchema())
	ca := b.duration("ca_ttl", plan.DefaultCATTL, plan.MinTTL, plan.MaxCATTL)
	least := plan.RootLives * ca
	cfg.Authority = Authority{
		CATTL:        ca,
		X509SVIDTTL:  b.duration("x509_svid_ttl", plan.DefaultX509SVIDTTL, plan.MinTTL, plan.MaxCATTL),
		JWTSVIDTTL:   b.duration("jwt_svid_ttl", plan.DefaultJWTSVIDTTL, plan.MinTTL, plan.MaxCATTL),
		JWTKeyTTL:    b.duration("jwt_key_ttl", max(plan.DefaultJWTKeyTTL, least), least, maxRootTTL),
		SigningGrace: b.duration("signing_grace", time.Hour, time.Second, 24*time.Hour),
		IssueRate:    b.integer("issue_rate", issue.DefaultRate, 0, 1_000_000),
		IssueBurst:   b.integer("issue_burst", issue.DefaultBurst, 1, 1_000_000),
		LintSample:   b.integer("lint_sample", issue.DefaultLintSample, 0, 1_000_000_000),
	}
	cfg.Authority.Keys = d.keys(b.out, nested)
}

// relations checks settings against each other: the lifetimes, since a new authority must be published long enough
// before it signs, and the ports.
func (d *decoder) relations(cfg *Config) {
	if d.diags.HasErrors() {
		return // single settings are fixed first
	}
	if err := cfg.DomainDefaults().Check(cfg.Federation.MinRefresh); err != nil {
		d.refuse(d.place("authority", ""), "authority: %v", err)
	}
	for _, pair := range samePort(cfg) {
		at, with := pair[1], pair[0]
		if _, given := d.found[at.block]; !given {
			at, with = with, at // the file does not have the later one
		}
		d.refuse(d.place(at.block, "listen"), "%s.listen: %q takes the port of %s.listen, %q; give each a port of its "+
			"own", at.block, at.address, with.block, with.address)
	}
}

// place returns the range of a setting in a block, or else that of the block, or the end of the file.
func (d *decoder) place(block, setting string) hcl.Range {
	hb, ok := d.found[block]
	if !ok {
		return d.file.Body.MissingItemRange()
	}
	if body, ok := hb.Body.(*hclsyntax.Body); ok && body.Attributes[setting] != nil {
		return body.Attributes[setting].Expr.Range()
	}
	return hb.DefRange
}

func (d *decoder) federation(cfg *Config) {
	b := d.block("federation", false)
	cfg.Federation.MinRefresh = b.duration("min_refresh", 10*time.Second, time.Second, 24*time.Hour)
	cfg.Federation.PeerMinRefresh = b.duration("peer_min_refresh", plan.DefaultPeerMinRefresh, time.Second,
		24*time.Hour)
	cfg.Federation.NoApproval = b.choice("approval", "required", "required", "none") == "none"
	cfg.Federation.egressProxy(b)
	cfg.Federation.BundleDir = b.text("bundle_dir", "")
	if dir := cfg.Federation.BundleDir; dir != "" && !filepath.IsAbs(dir) {
		b.refuse("bundle_dir", "bundle_dir %q must be an absolute path, such as /etc/entente/bundles", dir)
	}
}

// egressProxy reads the proxy on the way to other clusters.
func (f *Federation) egressProxy(b *block) {
	f.EgressProxy = b.text("egress_proxy", egress.Direct)
	if _, given := b.attrs["egress_proxy_credentials"]; given {
		secret := b.secret("egress_proxy_credentials")
		f.EgressCredentials = &secret
	}
	switch route, err := f.Route(); {
	case err != nil:
		b.refuse("egress_proxy", "egress_proxy %q is refused: %s", f.EgressProxy, err)
	case f.EgressCredentials != nil && !route.Proxied():
		b.refuse("egress_proxy_credentials",
			"egress_proxy_credentials are for an egress_proxy: name one, or remove them")
	}
}

func (d *decoder) upstream(cfg *Config) {
	least := plan.RootLives * cfg.Authority.CATTL
	cfg.SelfSigned.RootTTL = max(plan.DefaultRootTTL, least)
	hb, ok := d.found["upstream"]
	switch {
	case !ok || hb.Labels[0] == "selfsigned":
		b, _ := d.top("upstream", selfSignedSchema.hcl(), "selfsigned")
		cfg.SelfSigned.RootTTL = b.duration("root_ttl", cfg.SelfSigned.RootTTL, least, maxRootTTL)
	case hb.Labels[0] == "vault":
		d.vault(cfg, hb)
	default:
		d.refuse(hb.LabelRanges[0], "%q is not an upstream; write \"selfsigned\" or \"vault\", or leave the block out",
			hb.Labels[0])
	}
}

func (d *decoder) routing(cfg *Config) {
	b := d.block("routing", false)
	cfg.Routing = Routing{
		OverprovisioningFactor: b.integer("overprovisioning_factor", 140, 100, 10000),
		PanicThreshold:         b.integer("panic_threshold", 50, 0, 100),
		Stale:                  b.stalePolicy("stale"),
		ImportTTL: b.duration("import_ttl", exchange.DefaultImportTTL, exchange.MinImportTTL,
			exchange.MaxImportTTL),
		SelfPreservation: b.integer("self_preservation", int(preserve.Default), 1, int(preserve.Off)),
	}
}

func (d *decoder) raft(cfg *Config) {
	b := d.block("raft", false)
	cfg.Raft = Raft{
		HeartbeatTimeout: b.duration("heartbeat_timeout", time.Second, 50*time.Millisecond, time.Minute),
		ElectionTimeout:  b.duration("election_timeout", time.Second, 50*time.Millisecond, time.Minute),
		DiskTimeout:      b.duration("disk_timeout", 10*time.Second, 500*time.Millisecond, 5*time.Minute),
	}
	if cfg.Raft.ElectionTimeout < cfg.Raft.HeartbeatTimeout {
		b.refuse("election_timeout", "%s is shorter than heartbeat_timeout, %s",
			cfg.Raft.ElectionTimeout, cfg.Raft.HeartbeatTimeout)
	}
}
