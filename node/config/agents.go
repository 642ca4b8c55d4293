package config

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/ententehq/entente/registration/entry"
	"github.com/ententehq/entente/registration/nodeattest"
)

// Agents configures what beside one-time tokens admits agents. It is equal on every member.
type Agents struct {
	// X509PoPRoots is the file of the authorities of nodes, or "".
	X509PoPRoots string
	Kubernetes   []nodeattest.KubernetesConfig
}

var (
	agentsSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "x509pop"}, {Type: "kubernetes", LabelNames: []string{"name"}},
	}}
	x509popSchema    = blockSchema{required: []string{"ca_file"}}
	kubernetesSchema = blockSchema{
		required: []string{"accounts"}, optional: []string{"server", "ca_file", "token_file", "audience"},
	}
)

// serviceAccount is where Kubernetes puts what a pod calls the API server with.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxKubernetesName leaves room for the UID of a node in the name of an agent.
const maxKubernetesName = 20

// decodeAgents decodes the block agents.
func decodeAgents(d *decoder, cfg *Config) {
	if _, ok := d.found["agents"]; !ok {
		return
	}
	top, nested := d.top("agents", agentsSchema)
	for _, hb := range nested {
		if hb.Type == "x509pop" {
			b, _ := d.open("agents.x509pop", within(top.out, "x509pop"), hb.Body, x509popSchema.hcl())
			if cfg.Agents.X509PoPRoots != "" {
				d.refuse(hb.DefRange, "agents has two x509pop blocks; put all authorities into one ca_file")
			}
			cfg.Agents.X509PoPRoots = b.text("ca_file", "")
			continue
		}
		decodeKubernetes(d, cfg, top, hb)
	}
}

func decodeKubernetes(d *decoder, cfg *Config, top *block, hb *hcl.Block) {
	name := hb.Labels[0]
	b, _ := d.open("agents.kubernetes", within(top.out, "kubernetes", name), hb.Body, kubernetesSchema.hcl())
	k := nodeattest.KubernetesConfig{
		Cluster: name, Server: b.text("server", "https://kubernetes.default.svc"),
		CAFile:    b.text("ca_file", filepath.Join(serviceAccount, "ca.crt")),
		TokenFile: b.text("token_file", filepath.Join(serviceAccount, "token")),
		Audience:  b.text("audience", "entente"), Accounts: b.texts("accounts"),
	}
	if err := entry.CheckName("the name of a Kubernetes cluster", name); err != nil || len(name) > maxKubernetesName ||
		strings.Contains(name, ".") {
		d.refuse(hb.LabelRanges[0], "%q is not a name for a Kubernetes cluster: it has 1 to %d small letters, digits, "+
			"'-' and '_', since it is a part of the names of its agents, which a dot ends", name, maxKubernetesName)
	}
	same := func(other nodeattest.KubernetesConfig) bool { return other.Cluster == name }
	if slices.ContainsFunc(cfg.Agents.Kubernetes, same) {
		d.refuse(hb.DefRange, "agents has two kubernetes blocks with the name %q", name)
	}
	if !strings.HasPrefix(k.Server, "https://") {
		b.refuse("server", "%q is not the URL of an API server: write https://HOST:PORT", k.Server)
	}
	for _, account := range k.Accounts {
		if namespace, name, ok := strings.Cut(account, ":"); !ok || namespace == "" || name == "" ||
			strings.Contains(name, ":") {
			b.refuse("accounts", "%q is not a service account: write NAMESPACE:NAME", account)
		}
	}
	cfg.Agents.Kubernetes = append(cfg.Agents.Kubernetes, k)
}
