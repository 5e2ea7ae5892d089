"""What all tests share: hypothesis measures no time, since how fast a busy machine draws an example says nothing."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
