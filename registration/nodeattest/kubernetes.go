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
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ententehq/entente/internal/origin"
	"github.com/ententehq/entente/registration/entry"
)

// ByKubernetes is the kind of evidence that [Kubernetes] verifies, which SPIRE calls so too: a projected service
// account token.
const ByKubernetes = "k8s_psat"

const (
	maxToken  = 16 << 10
	maxReview = 1 << 20
	// reviewTimeout bounds a call to the API server, maxReviews those under way, and hostReviews those for one address
	// or site: callers are not known yet.
	reviewTimeout = 5 * time.Second
	maxReviews    = 8
	hostReviews   = 2
	// skew is how much later than here a token may expire by the clock of the API server.
	skew = time.Minute
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
	cfg    KubernetesConfig
	client *http.Client

	mu      sync.Mutex
	reviews int
	by      origin.Counts // of the reviews
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
	return &Kubernetes{cfg: cfg, client: newReviewClient(roots), by: origin.Counts{}}, nil
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
func (k *Kubernetes) Verify(ctx context.Context, token string, from origin.Origin, now time.Time) (Node, error) {
	if err := k.claimed(token, now); err != nil {
		return Node{}, err
	}
	leave, err := k.enter(from)
	if err != nil {
		return Node{}, err
	}
	defer leave()
	review, err := k.review(ctx, token)
	if err != nil {
		return Node{}, fmt.Errorf("review the token of an agent at the API server of %s: %w", k.cfg.Cluster, err)
	}
	return k.judge(review)
}

// signatures are the algorithms that API servers sign with.
var signatures = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// claimed refuses a token that by its own claims, which nothing has verified yet, the review could not make count.
func (k *Kubernetes) claimed(token string, now time.Time) error {
	var parsed *jwt.JSONWebToken
	err := errors.New("its size is not that of one")
	if n := len(token); n > 0 && n <= maxToken {
		parsed, err = jwt.ParseSigned(token, signatures)
	}
	var claims jwt.Claims
	if err == nil {
		err = parsed.UnsafeClaimsWithoutVerification(&claims)
	}
	switch {
	case err != nil:
		return refuse("k8s_psat: the token of %d bytes is no service account token: %.200v", len(token), err)
	case claims.Expiry == nil || now.After(claims.Expiry.Time().Add(skew)):
		return refuse("k8s_psat: the token has expired, or has no end: show the one that the kubelet projects now")
	case !slices.Contains(claims.Audience, k.cfg.Audience):
		return k.foreign()
	}
	_, err = k.account(claims.Subject)
	return err
}

func (k *Kubernetes) foreign() error {
	return refuse("k8s_psat: the token is not for the audience %q: project one for it into the pod", k.cfg.Audience)
}

// account returns the NAMESPACE:NAME of one of the accounts of agents.
func (k *Kubernetes) account(user string) (string, error) {
	account, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok || !slices.Contains(k.cfg.Accounts, account) {
		return "", refuse("k8s_psat: %.200q is not one of the accounts of agents in %s: list it in accounts", user,
			k.cfg.Cluster)
	}
	return account, nil
}

// enter takes the place of a review, if there is one for the address.
func (k *Kubernetes) enter(from origin.Origin) (leave func(), _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reviews >= maxReviews || k.by[from.Host] >= hostReviews || k.by[from.Site] >= hostReviews {
		return nil, fmt.Errorf("too many reviews are under way at the API server of %s, %d of them for %s: try again",
			k.cfg.Cluster, k.by[from.Host], from.Host)
	}
	k.reviews++
	k.by.Add(from, 1)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.reviews--
		k.by.Add(from, -1)
	}, nil
}

// uuid is the form of the UIDs that the API server makes.
var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// judge decides on a reviewed token.
func (k *Kubernetes) judge(r *tokenReview) (Node, error) {
	switch {
	case !r.Status.Authenticated:
		return Node{}, refuse("k8s_psat: the API server of %s does not accept the token: %.200s", k.cfg.Cluster,
			r.Status.Error)
	case !slices.Contains(r.Status.Audiences, k.cfg.Audience):
		return Node{}, k.foreign()
	}
	account, err := k.account(r.Status.User.Username)
	if err != nil {
		return Node{}, err
	}
	namespace, name, _ := strings.Cut(account, ":")
	extra := func(key string) string {
		values := r.Status.User.Extra["authentication.kubernetes.io/"+key]
		if len(values) != 1 {
			return ""
		}
		return values[0]
	}
	uid, pod := extra("node-uid"), extra("pod-uid")
	agent := "k8s." + k.cfg.Cluster + "." + uid
	if err := entry.CheckName("its agent", agent); err != nil || !uuid.MatchString(uid) || !uuid.MatchString(pod) {
		return Node{}, refuse("k8s_psat: the token is not bound to a pod on a node: project it into the pod of the "+
			"agent (Kubernetes 1.32 or later); its node has the UID %.80q, and its pod %.80q", uid, pod)
	}
	n := Node{Name: agent, Attestation: ByKubernetes}
	for _, s := range [][2]string{
		{"cluster", k.cfg.Cluster}, {"agent_ns", namespace}, {"agent_sa", name}, {"agent_pod_name", extra("pod-name")},
		{"agent_pod_uid", pod}, {"agent_node_name", extra("node-name")}, {"agent_node_uid", uid},
	} {
		if s[1] != "" {
			n.Selectors = append(n.Selectors, ByKubernetes+":"+s[0]+":"+s[1])
		}
	}
	if n.Selectors, err = entry.ParseSelectors("the review", n.Selectors); err != nil {
		return Node{}, refuse("k8s_psat: %v", err)
	}
	return n, nil
}

// review returns the API server's answer.
func (k *Kubernetes) review(ctx context.Context, token string) (*tokenReview, error) {
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
