package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/routing/exchange"
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
	"cluster": {required: []string{"name", "trust_domain", "region"}},
	"member":  {required: []string{"id", "zone"}, optional: []string{"data_dir", "listen", "advertise"}},
	"join":    {required: []string{"addresses", "token"}},
	"authority": {optional: []string{
		"ca_ttl", "x509_svid_ttl", "jwt_svid_ttl", "signing_grace", "issue_rate", "issue_burst", "lint_sample",
	}},
	"federation": {optional: []string{"min_refresh", "approval"}},
	"routing":    {optional: []string{"overprovisioning_factor", "panic_threshold", "stale", "import_ttl"}},
	"raft":       {optional: []string{"heartbeat_timeout", "election_timeout", "disk_timeout"}},
	"telemetry":  {optional: []string{"listen", "log_level", "log_format"}},
}

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
	diags       hcl.Diagnostics
}

func decodeConfig(file *hcl.File) (*Config, error) {
	top := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "bundle_endpoint"}, {Type: "upstream", LabelNames: []string{"name"}},
	}}
	for name := range blocks {
		top.Blocks = append(top.Blocks, hcl.BlockHeaderSchema{Type: name})
	}
	content, diags := file.Body.Content(top)
	d := &decoder{file: file, found: map[string]*hcl.Block{}, diags: diags}
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
		d.transit(cfg, d.transitKeys)
	}
	d.lifetimes(cfg)
	d.routing(cfg)
	d.raft(cfg)
	d.telemetry(cfg)
	if d.diags.HasErrors() {
		return nil, sentences(d.diags)
	}
	return cfg, nil
}

func (d *decoder) refuse(at hcl.Range, format string, args ...any) {
	d.diags = append(d.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Invalid block", Detail: fmt.Sprintf(format, args...), Subject: &at,
	})
}

// block opens the block of a type. An absent block is empty, and an error if it is required.
func (d *decoder) block(name string, required bool) *block {
	hb, ok := d.found[name]
	if !ok {
		if required {
			d.refuse(d.file.Body.MissingItemRange(), "the block %q is missing; it needs %v", name,
				blocks[name].required)
		}
		return &block{name: name, diags: &hcl.Diagnostics{}}
	}
	return d.open(name, hb.Body, blocks[name].hcl())
}

func (d *decoder) open(name string, body hcl.Body, schema *hcl.BodySchema) *block {
	content, diags := body.Content(schema)
	d.diags = append(d.diags, diags...)
	return &block{name: name, attrs: content.Attributes, missing: content.MissingItemRange, diags: &d.diags}
}

func (d *decoder) cluster(cfg *Config) {
	b := d.block("cluster", true)
	cfg.Cluster.Name = b.identifier("name")
	cfg.Cluster.Region = b.identifier("region")
	if name := b.text("trust_domain", ""); name != "" {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			b.refuse("trust_domain", "%v", err)
		}
		cfg.Cluster.TrustDomain = td
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
	m.Listen = b.hostPort("listen", defaultListen)
	if _, given := b.attrs["advertise"]; given {
		m.Advertise = b.hostPort("advertise", "")
		if unspecified(m.Advertise) {
			b.refuse("advertise", "%q is not an address that others can reach; name this machine", m.Advertise)
		}
		return
	}
	m.Advertise = m.Listen
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

// authorityBlock opens the block authority, and returns the blocks in it, which are of the type keys.
func (d *decoder) authorityBlock() (*block, hcl.Blocks) {
	hb, ok := d.found["authority"]
	if !ok {
		return &block{name: "authority", diags: &hcl.Diagnostics{}}, nil
	}
	schema := blocks["authority"].hcl()
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "keys", LabelNames: []string{"name"}}}
	content, diags := hb.Body.Content(schema)
	d.diags = append(d.diags, diags...)
	b := &block{name: "authority", attrs: content.Attributes, missing: content.MissingItemRange, diags: &d.diags}
	return b, content.Blocks
}

func (d *decoder) keys(blocks hcl.Blocks) Keys {
	keys := KeysDisk
	for i, hb := range blocks {
		keys = Keys(hb.Labels[0])
		switch {
		case i > 0:
			d.refuse(hb.DefRange, "authority has two keys blocks; a member keeps its keys in one place")
		case keys == KeysTransit:
			d.transitKeys = hb
		case keys != KeysDisk && keys != KeysMemory:
			d.refuse(hb.LabelRanges[0], "%q is not a place for keys; write %q, %q or %q",
				keys, KeysDisk, KeysMemory, KeysTransit)
		default:
			d.open(fmt.Sprintf("authority.keys %q", keys), hb.Body, blockSchema{}.hcl())
		}
	}
	return keys
}

func (d *decoder) authority(cfg *Config) {
	b, nested := d.authorityBlock()
	cfg.Authority = Authority{
		CATTL:        b.duration("ca_ttl", plan.DefaultCATTL, plan.MinTTL, plan.MaxCATTL),
		X509SVIDTTL:  b.duration("x509_svid_ttl", plan.DefaultX509SVIDTTL, plan.MinTTL, plan.MaxCATTL),
		JWTSVIDTTL:   b.duration("jwt_svid_ttl", plan.DefaultJWTSVIDTTL, plan.MinTTL, plan.MaxCATTL),
		SigningGrace: b.duration("signing_grace", time.Hour, time.Second, 24*time.Hour),
		IssueRate:    b.integer("issue_rate", issue.DefaultRate, 0, 1_000_000),
		IssueBurst:   b.integer("issue_burst", issue.DefaultBurst, 1, 1_000_000),
		LintSample:   b.integer("lint_sample", issue.DefaultLintSample, 0, 1_000_000_000),
		Keys:         d.keys(nested),
	}
}

// lifetimes checks that the lifetimes fit each other: a new authority must be published long enough before it signs.
func (d *decoder) lifetimes(cfg *Config) {
	if d.diags.HasErrors() {
		return // single settings are fixed first
	}
	at := d.file.Body.MissingItemRange()
	if b, ok := d.found["authority"]; ok {
		at = b.DefRange
	}
	if err := cfg.DomainDefaults().Check(cfg.Federation.MinRefresh); err != nil {
		d.refuse(at, "authority: %v", err)
	}
}

func (d *decoder) federation(cfg *Config) {
	b := d.block("federation", false)
	cfg.Federation.MinRefresh = b.duration("min_refresh", 10*time.Second, time.Second, 24*time.Hour)
	cfg.Federation.NoApproval = b.choice("approval", "required", "required", "none") == "none"
}

func (d *decoder) upstream(cfg *Config) {
	cfg.SelfSigned.RootTTL = 8760 * time.Hour
	hb, ok := d.found["upstream"]
	if !ok {
		return
	}
	switch hb.Labels[0] {
	case "selfsigned":
	case "vault":
		d.vault(cfg, hb)
		return
	default:
		d.refuse(hb.LabelRanges[0], "%q is not an upstream; write \"selfsigned\" or \"vault\", or leave the block out",
			hb.Labels[0])
		return
	}
	b := d.open(`upstream "selfsigned"`, hb.Body, selfSignedSchema.hcl())
	const maxRootTTL = 50 * 365 * 24 * time.Hour
	least := plan.RootLives * cfg.Authority.CATTL
	cfg.SelfSigned.RootTTL = b.duration("root_ttl", cfg.SelfSigned.RootTTL, least, maxRootTTL)
}

func (d *decoder) routing(cfg *Config) {
	b := d.block("routing", false)
	cfg.Routing = Routing{
		OverprovisioningFactor: b.integer("overprovisioning_factor", 140, 100, 10000),
		PanicThreshold:         b.integer("panic_threshold", 50, 0, 100),
		Stale:                  b.stalePolicy("stale"),
		ImportTTL: b.duration("import_ttl", exchange.DefaultImportTTL, exchange.MinImportTTL,
			exchange.MaxImportTTL),
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

func (d *decoder) telemetry(cfg *Config) {
	b := d.block("telemetry", false)
	cfg.Telemetry = Telemetry{
		Listen:    b.hostPort("listen", defaultOpsListen),
		LogLevel:  b.choice("log_level", "info", "trace", "debug", "info", "warn", "error"),
		LogFormat: b.choice("log_format", "text", "text", "json"),
	}
}
