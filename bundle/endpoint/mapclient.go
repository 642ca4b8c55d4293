package endpoint

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// MapResult is the result of fetching a bundle map.
type MapResult struct {
	// NotModified is true if the endpoint still serves the map of the ETag in the request. Nothing was read then.
	NotModified bool
	// Domains is the number of domains in the map.
	Domains int
	ETag    string
}

// FetchMap fetches the bundle map beside an endpoint under the endpoint's profile and identity. The map is at target
// or, if that is empty, at /bundles of the endpoint's host. It is read as by [bundle.ReadMap]: the documents count only
// if there is no error. Errors are as those of [Client.Fetch].
func (c *Client) FetchMap(
	ctx context.Context,
	e Remote,
	target, etag string,
	take func(td spiffeid.TrustDomain, document []byte) error,
) (MapResult, error) {
	var result MapResult
	err := c.requestMap(ctx, e, http.MethodGet, target, etag, func(response *http.Response) (err error) {
		result.ETag = responseETag(response)
		switch {
		case response.StatusCode == http.StatusNotModified && etag != "":
			result.NotModified = true
			return nil
		case response.StatusCode == http.StatusNotModified:
			return ErrNotAsked
		}
		if err := checkAnswer(response, bundle.MaxMapBytes); err != nil {
			return err
		}
		result.Domains, err = bundle.ReadMap(response.Body, take)
		return err
	})
	if err != nil {
		return MapResult{}, err
	}
	return result, nil
}

// ProbeMap checks whether there is a bundle map where [Client.FetchMap] would read it, without reading it. Errors are
// as those of [Client.Fetch]; a server that answers only GET has the reason of a bad status.
func (c *Client) ProbeMap(ctx context.Context, e Remote, target string) error {
	return c.requestMap(
		ctx,
		e,
		http.MethodHead,
		target,
		"",
		func(response *http.Response) error { return checkAnswer(response, bundle.MaxMapBytes) },
	)
}

func (c *Client) requestMap(
	ctx context.Context,
	e Remote,
	method, target, etag string,
	take func(*http.Response) error,
) error {
	if e.url == nil {
		return fmt.Errorf("fetch a bundle map: %w", ErrEndpoint)
	}
	from, err := e.mapURL(target)
	if err != nil {
		return fmt.Errorf("fetch a bundle map: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	if _, err := c.follow(bounded, e, method, from, etag, take); err != nil {
		return fmt.Errorf("fetch the bundle map of %s from %s: %w", e.td, from, c.named(ctx, err))
	}
	return nil
}

func (e Remote) mapURL(target string) (*url.URL, error) {
	if target != "" {
		return ParseURL(target)
	}
	at := *e.url
	at.Path, at.RawPath, at.RawQuery = "/bundles", "", ""
	return &at, nil
}
