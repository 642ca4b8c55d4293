package nodeattest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/registration/entry"
)

// ByKubernetes is the kind of evidence that [Kubernetes] verifies, which SPIRE calls so too: a projected service
// account token.
const ByKubernetes = "k8s_psat"

const (
	maxToken  = 16 << 10
	maxReview = 1 << 20
	// reviewTimeout bounds a call to the API server, and maxReviews those under way: callers are not known yet.
	reviewTimeout = 5 * time.Second
	maxReviews    = 8
)

// KubernetesConfig configures a [Kubernetes].
type KubernetesConfig struct {
	// Cluster is the name of the Kubernetes cluster here. It is part of the names of its agents.
	Cluster string
	// Server is the URL of the API server, and CAFile has the authorities that verify it.
	Server, CAFile string
	// TokenFile has the token with which this member may create TokenReviews. It is read for each.
	TokenFile string
	// Audience must be one of the tokens'. Accounts are the service accounts of agents, as NAMESPACE:NAME.
	Audience string
	Accounts []string
}

// Kubernetes admits agents by the projected tokens of their service accounts, which the API server reviews. The token
// must be bound to a pod on a node, which the agent is named after.
type Kubernetes struct {
	cfg     KubernetesConfig
	client  *http.Client
	reviews chan struct{}
}

// NewKubernetes reads the authorities.
func NewKubernetes(cfg KubernetesConfig) (*Kubernetes, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("the API server %q of cluster %s is not an https URL", cfg.Server, cfg.Cluster)
	}
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the authorities of the API server of %s: %w", cfg.Cluster, err)
	}
	roots, err := ParseRoots(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.CAFile, err)
	}
	return &Kubernetes{
		cfg: cfg, client: newReviewClient(roots), reviews: make(chan struct{}, maxReviews),
	}, nil
}

func newReviewClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: reviewTimeout,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: reviewTimeout, MaxConnsPerHost: maxReviews, IdleConnTimeout: time.Minute,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// tokenReview is the part of authentication.k8s.io/v1 TokenReview that is used.
type tokenReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token,omitempty"`
		Audiences []string `json:"audiences,omitempty"`
	} `json:"spec"`
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Error         string   `json:"error"`
		Audiences     []string `json:"audiences"`
		User          struct {
			Username string              `json:"username"`
			Extra    map[string][]string `json:"extra"`
		} `json:"user"`
	} `json:"status"`
}

// Verify has a token reviewed, and returns the node of its pod. An error that is no [Refusal] decides nothing.
func (k *Kubernetes) Verify(ctx context.Context, token string) (Node, error) {
	if n := len(token); n == 0 || n > maxToken || strings.Count(token, ".") != 2 {
		return Node{}, refuse("k8s_psat: the token of %d bytes is no service account token", n)
	}
	review, err := k.review(ctx, token)
	if err != nil {
		return Node{}, fmt.Errorf("review the token of an agent at the API server of %s: %w", k.cfg.Cluster, err)
	}
	return k.judge(review)
}

// judge decides on a reviewed token.
func (k *Kubernetes) judge(r *tokenReview) (Node, error) {
	switch {
	case !r.Status.Authenticated:
		return Node{}, refuse("k8s_psat: the API server of %s does not accept the token: %.200s", k.cfg.Cluster,
			r.Status.Error)
	case !slices.Contains(r.Status.Audiences, k.cfg.Audience):
		return Node{}, refuse("k8s_psat: the token is not for the audience %q: project one for it into the pod",
			k.cfg.Audience)
	}
	account, ok := strings.CutPrefix(r.Status.User.Username, "system:serviceaccount:")
	if !ok || !slices.Contains(k.cfg.Accounts, account) {
		return Node{}, refuse("k8s_psat: %.200q is not one of the accounts of agents in %s: list it in accounts",
			r.Status.User.Username, k.cfg.Cluster)
	}
	namespace, name, _ := strings.Cut(account, ":")
	extra := func(key string) string {
		values := r.Status.User.Extra["authentication.kubernetes.io/"+key]
		if len(values) != 1 {
			return ""
		}
		return values[0]
	}
	uid := extra("node-uid")
	agent := "k8s." + k.cfg.Cluster + "." + uid
	if err := entry.CheckName("its agent", agent); err != nil || uid == "" {
		return Node{}, refuse("k8s_psat: the token is not bound to a pod on a node: project it into the pod of the "+
			"agent (Kubernetes 1.32 or later); its node has the UID %.80q", uid)
	}
	n := Node{Name: agent, Attestation: ByKubernetes}
	for _, s := range [][2]string{
		{"cluster", k.cfg.Cluster}, {"agent_ns", namespace}, {"agent_sa", name}, {"agent_pod_name", extra("pod-name")},
		{"agent_pod_uid", extra("pod-uid")}, {"agent_node_name", extra("node-name")}, {"agent_node_uid", uid},
	} {
		if s[1] != "" {
			n.Selectors = append(n.Selectors, ByKubernetes+":"+s[0]+":"+s[1])
		}
	}
	var err error
	if n.Selectors, err = entry.ParseSelectors("the review", n.Selectors); err != nil {
		return Node{}, refuse("k8s_psat: %v", err)
	}
	return n, nil
}

// review returns the API server's answer.
func (k *Kubernetes) review(ctx context.Context, token string) (*tokenReview, error) {
	select {
	case k.reviews <- struct{}{}:
		defer func() { <-k.reviews }()
	default:
		return nil, errors.New("too many reviews are under way: try again")
	}
	own, err := os.ReadFile(k.cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the token of this member: %w", err)
	}
	ask := tokenReview{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}
	ask.Spec.Token, ask.Spec.Audiences = token, []string{k.cfg.Audience}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	at := strings.TrimSuffix(k.cfg.Server, "/") + "/apis/authentication.k8s.io/v1/tokenreviews"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(own)))
	answer, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxReview+1))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode != http.StatusCreated && answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answered %s: the account of this member needs the role system:auth-delegator",
			answer.Status)
	case len(content) > maxReview:
		return nil, errors.New("its answer is too large")
	}
	review := &tokenReview{}
	if err := json.Unmarshal(content, review); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	return review, nil
}
