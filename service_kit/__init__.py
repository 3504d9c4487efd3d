"""What every service process needs: settings, logs, errors, channels, a server. It knows nothing of the product."""
