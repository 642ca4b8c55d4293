package plan

// defaults returns the settings of a domain that is created without its own.
func defaults() Settings {
	return Settings{
		RefreshHint: DefaultRefreshHint, X509SVIDTTL: DefaultX509SVIDTTL, JWTSVIDTTL: DefaultJWTSVIDTTL,
		CATTL: DefaultCATTL,
	}
}
